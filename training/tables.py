"""An assessment written down: tables for people, figures for programs, pictures, every prediction."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import assess, figures
from training import manifest as manifests

LIMITS = (
    "Where a group is all right or all wrong, its interval has no width; read such rows by their number of images. "
    "HAM10000 does not record skin tone or device; it shows almost only lightly pigmented skin, so nothing here says "
    "how the model does on other skin tones, on other devices or at other sites than Vienna and Queensland."
)

COMPARED = (
    *("accuracy", "macro_precision", "macro_recall", "macro_f1"),
    *(f"f1/{code}" for code in taxonomy.CODES),
    "recall/mel",
)
OF_GROUPS = (
    ("accuracy", "balanced_accuracy", "expected_calibration_error", "expected_calibration_error_before"),
    ("macro_precision", "macro_recall", "macro_f1"),
    ("weighted_precision", "weighted_recall", "weighted_f1"),
    tuple(f"melanoma_sensitivity_at_specificity/{level:g}" for level in assess.SPECIFICITIES),
)
"""Figures of the tables of groups, beside the one by class."""
PUBLISHED = (0.843, 0.73, 0.67, 0.70, 0.63, 0.72, 0.70, 0.54, 0.58, 0.93, 0.80, 0.54)
"""What the publication reports of COMPARED, on 2,000 test images drawn at random by image."""


def write(
    assessment: assess.Assessment,
    probabilities: NDArray[np.floating],
    entries: list[manifests.Entry],
    images: NDArray[np.uint8],
    title: str,
    folder: Path,
) -> None:
    """Write an assessment into ``folder``: tables for people, figures for programs, pictures, every prediction."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "assessment.md").write_text(tables(assessment, title), encoding="utf-8")
    (folder / "assessment.json").write_text(json.dumps(asdict(assessment), indent=2) + "\n", encoding="utf-8")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "truth", *taxonomy.CODES])
        for entry, row in zip(entries, probabilities, strict=True):
            writer.writerow([entry.image_id, entry.diagnosis, *(f"{value:.7f}" for value in row)])
    true = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    figures.per_class(assessment, folder / "per-class.png")
    figures.confusion(probabilities, true, folder / "confusion.png")
    figures.roc(probabilities, true, assessment, folder / "roc.png")
    figures.reliability(probabilities, true, folder / "reliability.png")
    figures.worst(images, [entry.image_id for entry in entries], probabilities, true, folder / "worst.png")


def tables(assessment: assess.Assessment, title: str) -> str:
    """An assessment in Markdown: value (95 % interval)."""
    found = assessment.figures
    plain = [name for name in found if "/" not in name or name.startswith("melanoma")]
    by_class = ("precision", "recall", "f1", "auroc")
    blocks = [
        f"# {title}",
        f"{taxonomy.NOTICE}",
        f"{assessment.images} images of {assessment.lesions} lesions; 95 % intervals from {assess.DRAWS} bootstrap "
        "draws of lesions.",
        table(["figure", "value"], [[name, str(found[name])] for name in plain]),
        table(
            ["class", "images", *by_class],
            [
                [code, str(assessment.support[code]), *_cells(found, [f"{name}/{code}" for name in by_class])]
                for code in taxonomy.CODES
            ],
        ),
        "## By who and what the images show",
        LIMITS,
        "A figure that a group does not define is left out: the recall of a class that it does not have, say.",
        *(
            table(
                ["trait", "value", "images", *names],
                [
                    [group.trait, group.value, str(group.images), *_cells(group.figures, names)]
                    for group in assessment.groups
                ],
            )
            for names in OF_GROUPS
        ),
        table(
            ["trait", "value", "class", "images", *by_class],
            [
                [
                    *(group.trait, group.value, code, str(group.support[code])),
                    *_cells(group.figures, [f"{name}/{code}" for name in by_class]),
                ]
                for group in assessment.groups
                for code in taxonomy.CODES
                if group.support[code]
            ],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _cells(found: Mapping[str, assess.Figure], names: Sequence[str]) -> list[str]:
    return [str(found.get(name, "")) for name in names]


def comparison(found: dict[str, assess.Assessment]) -> str:
    """The published figures, and below them those of each assessment by its title, as a Markdown table."""
    rows = {"published": list(PUBLISHED)}
    rows |= {title: [one.figures[name].value for name in COMPARED] for title, one in found.items()}
    return table(["", *COMPARED], [[title, *(f"{value:.3g}" for value in row)] for title, row in rows.items()])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
