"""Temperature and out-of-distribution threshold, both chosen on ``val``."""

import numpy as np
from numpy.typing import NDArray

from dermq import scoring

THRESHOLD_QUANTILE = 0.99
"""Of ``val``'s scores: about one lesion in a hundred is flagged though it is like the training data."""
_RATIO = (np.sqrt(5) - 1) / 2
_SEARCH_STEPS = 40


def temperature(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The temperature that minimises the log loss of ``softmax(logits / temperature)``, between 0.05 and 20.

    Golden-section search over the logarithm; the loss has one minimum there (Guo et al., ICML 2017).
    """
    low, high = np.log(0.05), np.log(20.0)
    for _ in range(_SEARCH_STEPS):
        left, right = high - _RATIO * (high - low), low + _RATIO * (high - low)
        if _loss(logits, truth, left) < _loss(logits, truth, right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float64)


def threshold(scores: NDArray[np.floating]) -> float:
    """The out-of-distribution score above which an image counts as unlike the training data."""
    return float(np.quantile(scores, THRESHOLD_QUANTILE))


def _loss(logits: NDArray[np.floating], truth: NDArray[np.integer], log_temperature: float) -> float:
    return scoring.log_loss(softmax(logits / np.exp(log_temperature)), truth)
