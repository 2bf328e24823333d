"""Calibration on ``val``: temperature scaling and the out-of-distribution threshold."""

import numpy as np
from numpy.typing import NDArray

from dermq import scoring

THRESHOLD_QUANTILE = 0.99
"""The quantile of the ``val`` scores. About 1 % of lesions that are like the training data are flagged."""
_RATIO = (np.sqrt(5) - 1) / 2
_SEARCH_STEPS = 40


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return the temperature from 0.05 to 20 that minimises the log loss of ``softmax(logits / temperature)``.

    Golden-section search over the logarithm, where the loss has one minimum. Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017.
    """
    low, high = np.log(0.05), np.log(20.0)
    for _ in range(_SEARCH_STEPS):
        left, right = high - _RATIO * (high - low), low + _RATIO * (high - low)
        if _measure_loss(logits, truth, left) < _measure_loss(logits, truth, right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def apply_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the softmax of ``logits`` along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float64)


def find_threshold(scores: NDArray[np.floating]) -> float:
    """Return the out-of-distribution score above which an image counts as unlike the training data."""
    return float(np.quantile(scores, THRESHOLD_QUANTILE))


def _measure_loss(logits: NDArray[np.floating], truth: NDArray[np.integer], log_temperature: float) -> float:
    return scoring.measure_log_loss(apply_softmax(logits / np.exp(log_temperature)), truth)
