"""An assessment written down: tables for people, figures for programs, pictures, every prediction."""

import csv
import json
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
                [code, str(assessment.support[code]), *(str(found[f"{name}/{code}"]) for name in by_class)]
                for code in taxonomy.CODES
            ],
        ),
        table(
            ["trait", "value", "images", "melanomas", "accuracy", "balanced accuracy", "melanoma recall"],
            [
                [
                    *(group.trait, group.value, str(group.images), str(group.melanomas)),
                    *(str(group.accuracy), str(group.balanced_accuracy), str(group.melanoma_recall or "")),
                ]
                for group in assessment.groups
            ],
        ),
        LIMITS,
    ]
    return "\n\n".join(blocks) + "\n"


def comparison(found: dict[str, assess.Assessment]) -> str:
    """The published figures, and below them those of each assessment by its title, as a Markdown table."""
    rows = {"published": list(PUBLISHED)}
    rows |= {title: [one.figures[name].value for name in COMPARED] for title, one in found.items()}
    return table(["", *COMPARED], [[title, *(f"{value:.3g}" for value in row)] for title, row in rows.items()])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
