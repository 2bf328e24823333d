"""Writes an assessment: Markdown tables, figures as JSON, pictures, and every prediction as CSV."""

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
    "If a group has only right or only wrong predictions, its interval has no width: consider its number of images. "
    "HAM10000 does not record skin tone or device and shows almost only lightly pigmented skin. So these figures say "
    "nothing about other skin tones, other devices, or other sites than Vienna and Queensland."
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
"""The figures of the tables of groups; one more table shows the figures by class."""
PUBLISHED = (0.843, 0.73, 0.67, 0.70, 0.63, 0.72, 0.70, 0.54, 0.58, 0.93, 0.80, 0.54)
"""The published values of COMPARED, on 2,000 test images from a random split by image."""


def write(
    assessment: assess.Assessment,
    probabilities: NDArray[np.floating],
    entries: list[manifests.Entry],
    images: NDArray[np.uint8],
    title: str,
    folder: Path,
) -> None:
    """Write an assessment to ``folder``: Markdown tables, figures as JSON, pictures, and every prediction as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "assessment.md").write_text(make_tables(assessment, title), encoding="utf-8")
    (folder / "assessment.json").write_text(json.dumps(asdict(assessment), indent=2) + "\n", encoding="utf-8")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "truth", *taxonomy.CODES])
        for entry, row in zip(entries, probabilities, strict=True):
            writer.writerow([entry.image_id, entry.diagnosis, *(f"{value:.7f}" for value in row)])
    true = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    figures.draw_per_class(assessment, folder / "per-class.png")
    figures.draw_confusion(probabilities, true, folder / "confusion.png")
    figures.draw_roc(probabilities, true, assessment, folder / "roc.png")
    figures.draw_reliability(probabilities, true, folder / "reliability.png")
    figures.draw_worst(images, [entry.image_id for entry in entries], probabilities, true, folder / "worst.png")


def make_tables(assessment: assess.Assessment, title: str) -> str:
    """Return an assessment as Markdown tables of values with their 95 % intervals."""
    found = assessment.figures
    plain = [name for name in found if "/" not in name or name.startswith("melanoma")]
    by_class = ("precision", "recall", "f1", "auroc")
    blocks = [
        f"# {title}",
        f"{taxonomy.NOTICE}",
        f"{assessment.images} images of {assessment.lesions} lesions; 95 % intervals from {assess.DRAWS} bootstrap "
        "draws of lesions.",
        make_table(["figure", "value"], [[name, str(found[name])] for name in plain]),
        make_table(
            ["class", "images", *by_class],
            [
                [code, str(assessment.support[code]), *_make_cells(found, [f"{name}/{code}" for name in by_class])]
                for code in taxonomy.CODES
            ],
        ),
        "## By groups of images",
        LIMITS,
        "A figure that is undefined for a group is left out, for example the recall of a class without images.",
        *(
            make_table(
                ["trait", "value", "images", *names],
                [
                    [group.trait, group.value, str(group.images), *_make_cells(group.figures, names)]
                    for group in assessment.groups
                ],
            )
            for names in OF_GROUPS
        ),
        make_table(
            ["trait", "value", "class", "images", *by_class],
            [
                [
                    *(group.trait, group.value, code, str(group.support[code])),
                    *_make_cells(group.figures, [f"{name}/{code}" for name in by_class]),
                ]
                for group in assessment.groups
                for code in taxonomy.CODES
                if group.support[code]
            ],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _make_cells(found: Mapping[str, assess.Figure], names: Sequence[str]) -> list[str]:
    return [str(found.get(name, "")) for name in names]


def make_comparison(found: dict[str, assess.Assessment]) -> str:
    """Return a Markdown table of the published figures and, below them, those of each assessment by its title."""
    rows = {"published": list(PUBLISHED)}
    rows |= {title: [one.figures[name].value for name in COMPARED] for title, one in found.items()}
    return make_table(["", *COMPARED], [[title, *(f"{value:.3g}" for value in row)] for title, row in rows.items()])


def make_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
