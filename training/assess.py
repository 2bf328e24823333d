"""The long form of an evaluation: every figure with its interval, and the same by who and what the images show.

Intervals are percentiles of a bootstrap over lesions, not images: several images of one lesion are no independent
evidence (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import calibrate, metrics
from training import manifest as manifests

DRAWS = 1000
SPECIFICITIES = (0.80, 0.90, 0.95)
AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, 200))
"""Years, the upper end left out."""
MELANOMA = "mel"


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
    support: dict[str, int]
    """Images by class."""
    figures: dict[str, Figure]
    """As those of an Assessment, without those that the group's images do not define."""


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
    return Assessment(
        images=len(entries),
        lesions=len({entry.lesion_id for entry in entries}),
        support=_support(truth),
        figures=_figures(probabilities, truth, weights, temperature),
        groups=_groups(probabilities, entries, truth, weights, temperature),
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
    temperature: float,
) -> list[Group]:
    found = []
    for trait, read in TRAITS.items():
        values = np.array([read(entry) for entry in entries])
        for value in sorted(set(values)):
            here = values == value
            drawn = weights[:, here]
            figures = _figures(probabilities[here], truth[here], drawn[drawn.sum(axis=1) > 0], temperature)
            undefined = _undefined(probabilities[here], truth[here])
            found.append(
                Group(
                    trait=trait,
                    value=str(value),
                    images=int(here.sum()),
                    support=_support(truth[here]),
                    figures={name: figure for name, figure in figures.items() if name not in undefined},
                )
            )
    return found


def _support(truth: NDArray[np.int64]) -> dict[str, int]:
    return {code: int((truth == number).sum()) for number, code in enumerate(taxonomy.CODES)}


def _undefined(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> set[str]:
    """Names of figures that are 1 by convention alone, and of averages that hold such a one."""
    defined = metrics.defined(metrics.confusion(metrics.decide(probabilities), truth))
    undefined = {f"{kind}/{taxonomy.CODES[number]}" for kind, ok in defined.items() for number in np.flatnonzero(~ok)}
    undefined |= {f"macro_{kind}" for kind, ok in defined.items() if not ok.all()}
    undefined |= {f"weighted_{kind}" for kind, ok in defined.items() if not ok[np.unique(truth)].all()}
    return undefined


def _figures(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], weights: NDArray[np.float64], temperature: float
) -> dict[str, Figure]:
    """Every figure of some images. Areas and sensitivities are left out of a class that has all of them or none."""
    uncalibrated = calibrate.softmax(temperature * np.log(np.maximum(probabilities, 1e-30)))
    figures = _rates(probabilities, truth, weights)
    for name, said in (
        ("expected_calibration_error", probabilities),
        ("expected_calibration_error_before", uncalibrated),
    ):
        figures[name] = _figure(metrics.calibration_error(said, truth), metrics.calibration_error(said, truth, weights))
    for number, code in enumerate(taxonomy.CODES):
        positive = truth == number
        if positive.all() or not positive.any():
            continue
        both = weights[(weights @ positive > 0) & (weights @ ~positive > 0)]
        one = metrics.roc(probabilities[:, number], positive)
        drawn = metrics.roc(probabilities[:, number], positive, both)
        figures[f"auroc/{code}"] = _figure(one.area(), drawn.area())
        if code == MELANOMA:
            for level in SPECIFICITIES:
                figures[f"melanoma_sensitivity_at_specificity/{level:g}"] = _figure(
                    one.sensitivity_at(level), drawn.sensitivity_at(level)
                )
    return figures


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


def _figure(value: float | NDArray[np.float64], drawn: NDArray[np.float64]) -> Figure:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(float(value), float(low), float(high))
