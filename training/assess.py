"""The long form of an evaluation: every figure with its interval, and the same by who and what the images show.

Intervals are percentiles of a bootstrap over lesions, not images: several images of one lesion are no independent
evidence (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import calibrate, metrics
from training import manifest as manifests

DRAWS = 1000
SPECIFICITIES = (0.80, 0.90, 0.95)
AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, 200))
"""Years, the upper end left out."""
MELANOMA = taxonomy.CODES.index("mel")


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Group:
    """The figures of the images that share something."""

    trait: str
    value: str
    images: int
    melanomas: int
    accuracy: Figure
    balanced_accuracy: Figure
    """Over the classes that the group has."""
    melanoma_recall: Figure | None
    """None without melanomas."""


@dataclass(frozen=True)
class Assessment:
    """Everything ``assess`` finds out."""

    images: int
    lesions: int
    support: dict[str, int]
    figures: dict[str, Figure]
    """By name; figures of a class as ``recall/mel``."""
    groups: list[Group]


def assess(
    probabilities: NDArray[np.floating],
    entries: list[manifests.Entry],
    temperature: float,
    *,
    draws: int = DRAWS,
    seed: int = 1,
) -> Assessment:
    """Assess ``probabilities (n, 7)`` of the images of ``entries``.

    ``temperature`` is the one already in the probabilities; it is taken out again to say what it changed.
    """
    truth = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    weights = lesion_draws([entry.lesion_id for entry in entries], draws, seed)
    uncalibrated = calibrate.softmax(temperature * np.log(np.maximum(probabilities, 1e-30)))
    figures = _rates(probabilities, truth, weights)
    figures |= {
        "expected_calibration_error": _figure(
            metrics.calibration_error(probabilities, truth), metrics.calibration_error(probabilities, truth, weights)
        ),
        "expected_calibration_error_before": _figure(
            metrics.calibration_error(uncalibrated, truth), metrics.calibration_error(uncalibrated, truth, weights)
        ),
    }
    for number, code in enumerate(taxonomy.CODES):
        figures[f"auroc/{code}"] = _resampled(_auroc, probabilities[:, number], truth == number, weights)
    for level in SPECIFICITIES:
        figures[f"melanoma_sensitivity_at_specificity/{level:g}"] = _resampled(
            partial(metrics.sensitivity_at, specificity=level), probabilities[:, MELANOMA], truth == MELANOMA, weights
        )
    return Assessment(
        images=len(entries),
        lesions=len({entry.lesion_id for entry in entries}),
        support={code: int((truth == number).sum()) for number, code in enumerate(taxonomy.CODES)},
        figures=figures,
        groups=_groups(probabilities, entries, truth, weights),
    )


def lesion_draws(lesions: list[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap weights ``(draws, n)`` of the images: how often each one's lesion was drawn."""
    names, place = np.unique(lesions, return_inverse=True)
    chance = np.random.default_rng(seed)
    counts = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.asarray(counts[:, place], np.float64)


def age_band(age: str) -> str:
    """The band that an age of the metadata falls into, or ``unknown``."""
    try:
        years = float(age)
    except ValueError:
        return "unknown"
    low, high = next(band for band in AGE_BANDS if band[0] <= years < band[1])
    return f"{low} and older" if high == AGE_BANDS[-1][1] else f"{low} to {high - 1}"


TRAITS: dict[str, Callable[[manifests.Entry], str]] = {
    "sex": lambda entry: entry.sex or "unknown",
    "age": lambda entry: age_band(entry.age),
    "body site": lambda entry: entry.site or "unknown",
    "confirmation": lambda entry: entry.confirmation or "unknown",
}


def _groups(
    probabilities: NDArray[np.floating],
    entries: list[manifests.Entry],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> list[Group]:
    found = []
    for trait, read in TRAITS.items():
        values = np.array([read(entry) for entry in entries])
        for value in sorted(set(values)):
            here = values == value
            found.append(_group(trait, str(value), probabilities[here], truth[here], weights[:, here]))
    return found


def _group(
    trait: str,
    value: str,
    probabilities: NDArray[np.floating],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> Group:
    figures = _rates(probabilities, truth, weights[weights.sum(axis=1) > 0])
    melanomas = int((truth == MELANOMA).sum())
    return Group(
        trait=trait,
        value=value,
        images=len(truth),
        melanomas=melanomas,
        accuracy=figures["accuracy"],
        balanced_accuracy=figures["balanced_accuracy"],
        melanoma_recall=figures["recall/mel"] if melanomas else None,
    )


def _rates(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, Figure]:
    """``metrics.rates`` with intervals; draws in which a class's figure is undefined say nothing about it."""
    decided = metrics.decide(probabilities)
    values = metrics.flat(metrics.rates(metrics.confusion(decided, truth)))
    tables = metrics.confusion(decided, truth, weights)
    drawn, defined = metrics.rates(tables), metrics.defined(tables)
    found = {}
    for name, value in values.items():
        kind, _, code = name.partition("/")
        number = taxonomy.CODES.index(code) if code else 0
        column = drawn[kind][:, number][defined[kind][:, number]] if code else drawn[kind]
        found[name] = _figure(value, column if len(column) else np.array([value]))
    return found


def _resampled(
    measure: Callable[[NDArray[np.floating], NDArray[np.bool_]], float],
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> Figure:
    """``measure`` on all images and on each draw that holds both kinds of them; 1 where there is only one kind."""
    if positive.all() or not positive.any():
        return Figure(1.0, 1.0, 1.0)
    drawn = []
    for row in weights.astype(int):
        repeated = np.repeat(positive, row)
        if repeated.any() and not repeated.all():
            drawn.append(measure(np.repeat(scores, row), repeated))
    return _figure(measure(scores, positive), np.array(drawn))


def _auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    return metrics.auroc(scores[positive], scores[~positive])


def _figure(value: float | NDArray[np.float64], drawn: NDArray[np.float64]) -> Figure:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(float(value), float(low), float(high))
