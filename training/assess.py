"""The long form of an evaluation: every figure with its interval, and the same by who and what the images show."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import scoring, taxonomy
from dermq.scoring import Figure as Figure
from dermq.scoring import lesion_draws as lesion_draws
from training import calibrate
from training import manifest as manifests

DRAWS = scoring.DRAWS
SPECIFICITIES = scoring.SPECIFICITIES
AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, 200))
"""Years, the upper end left out."""


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
        support=scoring.support(truth),
        figures=_figures(probabilities, truth, weights, temperature),
        groups=_groups(probabilities, entries, truth, weights, temperature),
    )


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
            undefined = scoring.undefined(probabilities[here], truth[here])
            found.append(
                Group(
                    trait=trait,
                    value=str(value),
                    images=int(here.sum()),
                    support=scoring.support(truth[here]),
                    figures={name: figure for name, figure in figures.items() if name not in undefined},
                )
            )
    return found


def _figures(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], weights: NDArray[np.float64], temperature: float
) -> dict[str, Figure]:
    """Every figure of some images, and the calibration error that they had without the temperature."""
    uncalibrated = calibrate.softmax(temperature * np.log(np.maximum(probabilities, 1e-30)))
    before = scoring.calibration_figure(uncalibrated, truth, weights)
    return scoring.figures(probabilities, truth, weights) | {"expected_calibration_error_before": before}
