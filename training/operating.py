"""Operating points: thresholds, chosen on val, above which an image is called melanoma or malignant.

The decision for one of seven diagnoses gives all mistakes the same weight. A screening must miss few melanomas, and its
users must know the cost in specificity. A point is named by its sensitivity on val and is measured on test.
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
    """A name such as ``melanoma at sensitivity 0.80``."""
    diagnoses: tuple[str, ...]
    threshold: float
    """An image is called positive when the sum of its probabilities of ``diagnoses`` reaches this value."""


@dataclass(frozen=True)
class Measured:
    """The figures of a point on some images, with 95 % bootstrap intervals over lesions."""

    images: int
    positive: int
    sensitivity: assess.Figure
    specificity: assess.Figure


def choose(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> list[Point]:
    """Return the points for ``probabilities (n, 7)`` of val, without those for which val has no positive image.

    Each threshold is the highest that reaches its sensitivity. It lies half-way to the next lower score, so that
    rounding does not move an image across it.
    """
    return [
        Point(
            f"{call} at sensitivity {level:.2f}",
            diagnoses,
            _find_threshold(*_sum_scores(probabilities, truth, diagnoses), level),
        )
        for call, diagnoses in CALLS.items()
        if np.isin(truth, _find_numbers(diagnoses)).any()
        for level in SENSITIVITIES
    ]


def measure(
    point: Point, probabilities: NDArray[np.floating], truth: NDArray[np.integer], lesions: list[str]
) -> Measured:
    """Measure ``point`` on images of ``lesions``, which must include positive and negative images."""
    scores, positive = _sum_scores(probabilities, truth, point.diagnoses)
    called, draws = scores >= point.threshold, assess.draw_lesions(lesions, assess.DRAWS, seed=1)
    return Measured(
        images=len(truth),
        positive=int(positive.sum()),
        sensitivity=_measure_share(called, positive, draws),
        specificity=_measure_share(~called, ~positive, draws),
    )


def _find_threshold(scores: NDArray[np.float64], positive: NDArray[np.bool_], sensitivity: float) -> float:
    found = np.sort(scores[positive])[::-1]
    lowest = found[math.ceil(sensitivity * len(found) - 1e-9) - 1]
    below = scores[scores < lowest]
    return float((lowest + below.max()) / 2 if len(below) else lowest / 2)


def _sum_scores(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], diagnoses: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each image's summed probability of ``diagnoses``, and whether its true diagnosis is one of them."""
    numbers = _find_numbers(diagnoses)
    return probabilities[:, numbers].astype(np.float64).sum(axis=1), np.isin(truth, numbers)


def _find_numbers(diagnoses: tuple[str, ...]) -> list[int]:
    return [taxonomy.CODES.index(code) for code in diagnoses]


def _measure_share(right: NDArray[np.bool_], among: NDArray[np.bool_], draws: NDArray[np.float64]) -> assess.Figure:
    """Return the share of the images ``among`` that are ``right``, with its interval."""
    counted, all_of = draws @ (right & among), draws @ among
    low, high = np.percentile(counted[all_of > 0] / all_of[all_of > 0], [2.5, 97.5])
    return assess.Figure(float(right[among].mean()), float(low), float(high))
