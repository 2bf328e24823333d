"""The full assessment of a model: every figure with its interval, for all images and for groups of them.

Groups are formed by the patients' sex and age, by body site, and by how the diagnosis was confirmed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import scoring, taxonomy
from dermq.scoring import Figure as Figure
from dermq.scoring import draw_lesions as draw_lesions
from training import calibrate
from training import manifest as manifests

DRAWS = scoring.DRAWS
SPECIFICITIES = scoring.SPECIFICITIES
AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, 200))
"""Ages in years, from the first number up to but not including the second."""


@dataclass(frozen=True)
class Group:
    """The figures of the images with one value of one trait."""

    trait: str
    value: str
    images: int
    support: dict[str, int]
    """The number of images of each diagnosis."""
    figures: dict[str, Figure]
    """The figures of an Assessment, without those that are undefined for the group."""


@dataclass(frozen=True)
class Assessment:
    """The result of ``assess``."""

    images: int
    lesions: int
    support: dict[str, int]
    figures: dict[str, Figure]
    """The figures by name. The name of a figure of one diagnosis is like ``recall/mel``."""
    groups: list[Group]


def assess(
    probabilities: NDArray[np.floating],
    entries: list[manifests.Entry],
    temperature: float,
    *,
    draws: int = DRAWS,
    seed: int = 1,
) -> Assessment:
    """Assess ``probabilities (n, 7)`` of the images of ``entries``, with bootstrap intervals over lesions.

    ``temperature`` is the one that the probabilities already contain. The calibration error without it is added.
    """
    truth = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    weights = draw_lesions([entry.lesion_id for entry in entries], draws, seed)
    return Assessment(
        images=len(entries),
        lesions=len({entry.lesion_id for entry in entries}),
        support=scoring.count_support(truth),
        figures=_measure(probabilities, truth, weights, temperature),
        groups=_assess_groups(probabilities, entries, truth, weights, temperature),
    )


def find_age_band(age: str) -> str:
    """Return the age band of an age in the metadata, or ``unknown``."""
    try:
        years = float(age)
    except ValueError:
        return "unknown"
    low, high = next(band for band in AGE_BANDS if band[0] <= years < band[1])
    return f"{low} and older" if high == AGE_BANDS[-1][1] else f"{low} to {high - 1}"


TRAITS: dict[str, Callable[[manifests.Entry], str]] = {
    "sex": lambda entry: entry.sex or "unknown",
    "age": lambda entry: find_age_band(entry.age),
    "body site": lambda entry: entry.site or "unknown",
    "confirmation": lambda entry: entry.confirmation or "unknown",
}


def _assess_groups(
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
            figures = _measure(probabilities[here], truth[here], drawn[drawn.sum(axis=1) > 0], temperature)
            undefined = scoring.find_undefined(probabilities[here], truth[here])
            found.append(
                Group(
                    trait=trait,
                    value=str(value),
                    images=int(here.sum()),
                    support=scoring.count_support(truth[here]),
                    figures={name: figure for name, figure in figures.items() if name not in undefined},
                )
            )
    return found


def _measure(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], weights: NDArray[np.float64], temperature: float
) -> dict[str, Figure]:
    """Return every figure of some images, and their calibration error before temperature scaling."""
    uncalibrated = calibrate.apply_softmax(temperature * np.log(np.maximum(probabilities, 1e-30)))
    before = scoring.measure_calibration(uncalibrated, truth, weights)
    return scoring.measure(probabilities, truth, weights) | {"expected_calibration_error_before": before}
