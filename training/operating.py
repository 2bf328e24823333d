"""Operating points: thresholds, chosen on val, from which an image is called melanoma or malignant.

The decision for one of seven diagnoses weighs all mistakes alike. Who screens wants few melanomas missed, and to know
what that costs: a point is named by the sensitivity that it had on val, and its card states what it has on test.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import assess

CALLS = {"melanoma": ("mel",), "malignant": ("akiec", "bcc", "mel")}
SENSITIVITIES = (0.80, 0.90)


@dataclass(frozen=True)
class Point:
    """One threshold."""

    name: str
    """As ``melanoma at sensitivity 0.80``."""
    diagnoses: tuple[str, ...]
    threshold: float
    """An image is called when its probabilities of ``diagnoses`` add up to this or more."""


@dataclass(frozen=True)
class Measured:
    """What a point does on some images, with 95 % intervals over draws of lesions."""

    images: int
    positive: int
    sensitivity: assess.Figure
    specificity: assess.Figure


def choose(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> list[Point]:
    """The points for ``probabilities (n, 7)`` of val; none for a call that val has no image of.

    Each threshold is the highest that reaches its sensitivity, half-way to the next lower score, so that rounding does
    not move an image across.
    """
    return [
        Point(
            f"{call} at sensitivity {level:.2f}",
            diagnoses,
            _threshold(*_scores(probabilities, truth, diagnoses), level),
        )
        for call, diagnoses in CALLS.items()
        if np.isin(truth, _numbers(diagnoses)).any()
        for level in SENSITIVITIES
    ]


def measure(
    point: Point, probabilities: NDArray[np.floating], truth: NDArray[np.integer], lesions: list[str]
) -> Measured:
    """What ``point`` does on images of ``lesions``; both kinds of image have to be among them."""
    scores, positive = _scores(probabilities, truth, point.diagnoses)
    called, draws = scores >= point.threshold, assess.lesion_draws(lesions, assess.DRAWS, seed=1)
    return Measured(
        images=len(truth),
        positive=int(positive.sum()),
        sensitivity=_share(called, positive, draws),
        specificity=_share(~called, ~positive, draws),
    )


def _threshold(scores: NDArray[np.float64], positive: NDArray[np.bool_], sensitivity: float) -> float:
    found = np.sort(scores[positive])[::-1]
    lowest = found[math.ceil(sensitivity * len(found) - 1e-9) - 1]
    below = scores[scores < lowest]
    return float((lowest + below.max()) / 2 if len(below) else lowest / 2)


def _scores(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], diagnoses: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How likely each image is one of ``diagnoses``, and whether it is."""
    numbers = _numbers(diagnoses)
    return probabilities[:, numbers].astype(np.float64).sum(axis=1), np.isin(truth, numbers)


def _numbers(diagnoses: tuple[str, ...]) -> list[int]:
    return [taxonomy.CODES.index(code) for code in diagnoses]


def _share(right: NDArray[np.bool_], among: NDArray[np.bool_], draws: NDArray[np.float64]) -> assess.Figure:
    """The share of ``among`` that is ``right``."""
    counted, all_of = draws @ (right & among), draws @ among
    low, high = np.percentile(counted[all_of > 0] / all_of[all_of > 0], [2.5, 97.5])
    return assess.Figure(float(right[among].mean()), float(low), float(high))
