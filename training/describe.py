"""Describes the dataset as its publication does, and the network in tables and figures."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermq import taxonomy
from training import figures, tables
from training.manifest import Subject

UNKNOWN = "unknown"
CONFIRMATIONS = {
    "histo": "histopathology",
    "follow_up": "follow-up",
    "consensus": "expert consensus",
    "confocal": "confocal microscopy",
}


@dataclass(frozen=True)
class Dataset:
    """HAM10000's metadata in numbers. Each dictionary holds counts by value, the most frequent value first."""

    images: int
    lesions: int
    ages: int
    """The number of images with a known age."""
    age_mean: float
    age_deviation: float
    """The standard deviation of these ages in years, with the divisor n."""
    sexes: dict[str, int]
    sites: dict[str, int]
    confirmations: dict[str, int]
    diagnoses: dict[str, int]
    splits: dict[str, int]


def describe_dataset(subjects: Sequence[Subject]) -> Dataset:
    """Count ``subjects``."""
    ages = [float(subject.age) for subject in subjects if subject.age]
    mean = math.fsum(ages) / len(ages)
    return Dataset(
        images=len(subjects),
        lesions=len({subject.lesion_id for subject in subjects}),
        ages=len(ages),
        age_mean=mean,
        age_deviation=math.sqrt(math.fsum((age - mean) ** 2 for age in ages) / len(ages)),
        sexes=_count_values(subject.sex for subject in subjects),
        sites=_count_values(subject.site for subject in subjects),
        confirmations=_count_values(CONFIRMATIONS.get(s.confirmation, s.confirmation) for s in subjects),
        diagnoses={code: sum(s.diagnosis == code for s in subjects) for code in taxonomy.CODES},
        splits=_count_values(subject.split for subject in subjects),
    )


def write_dataset(subjects: Sequence[Subject], folder: Path) -> str:
    """Write tables and figures of ``subjects`` into ``folder`` and return the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    found = describe_dataset(subjects)
    text = _write_text(found)
    (folder / "dataset.md").write_text(text, encoding="utf-8")
    figures.draw_counts({"diagnosis": found.diagnoses, "sex": found.sexes, "confirmation": found.confirmations,
                    "split": found.splits}, folder / "dataset.png")  # fmt: skip
    figures.draw_counts({"body site": found.sites}, folder / "body-sites.png")
    ages = [float(subject.age) for subject in subjects if subject.age]
    codes = [subject.diagnosis for subject in subjects if subject.age]
    figures.draw_ages(np.array(ages), codes, folder / "ages.png")
    return text


def write_model(network: Any, folder: Path) -> str:
    """Write the table of layers and the figure of the stages of ``network`` into ``folder``; return a short table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        [layer.name, type(layer).__name__, _format_shape(layer), f"{layer.count_params():,}"]
        for layer in network.layers
    ]
    total = f"{len(rows)} layers, {network.count_params():,} parameters, input {_format_shape(network.layers[0])}."
    text = f"# The network\n\n{total}\n\n" + tables.make_table(["layer", "kind", "output", "parameters"], rows) + "\n"
    (folder / "model.md").write_text(text, encoding="utf-8")
    found = list_stages(network)
    figures.draw_architecture(found, folder / "model.png")
    return (
        total
        + "\n\n"
        + tables.make_table(
            ["stage", "output", "layers", "parameters"],
            [[stage.name, stage.output, str(stage.layers), f"{stage.parameters:,}"] for stage in found],
        )
    )


@dataclass(frozen=True)
class Stage:
    """Consecutive layers of the network with a common name."""

    name: str
    output: str
    """The shape of its output, for example ``120 x 120 x 32``."""
    layers: int
    parameters: int


def list_stages(network: Any) -> list[Stage]:
    """Return the stages of the network: input, stem, each block, top, and each layer of the head."""
    grouped: dict[str, list[Any]] = {}
    for layer in network.layers:
        grouped.setdefault(_make_stage(layer.name), []).append(layer)
    return [
        Stage(name, _format_shape(layers[-1]), len(layers), sum(layer.count_params() for layer in layers))
        for name, layers in grouped.items()
    ]


def _make_stage(name: str) -> str:
    if name.startswith("block"):
        return name.split("_")[0]
    if name.split("_")[0] in ("stem", "top"):
        return name.split("_")[0]
    if name.split("_")[0] in ("pixels", "rescaling", "normalization"):
        return "input"
    return name


def _format_shape(layer: Any) -> str:
    return " x ".join(str(side) for side in layer.output.shape[1:])


def _write_text(found: Dataset) -> str:
    def counted(counts: dict[str, int]) -> str:
        return tables.make_table(
            ["value", "images", "share"],
            [[value, f"{count:,}", f"{count / found.images:.1%}"] for value, count in counts.items()],
        )

    return (
        f"# HAM10000\n\n{found.images:,} images of {found.lesions:,} lesions. "
        f"Age {found.age_mean:.3f} ± {found.age_deviation:.3f} years for {found.ages:,} images.\n\n"
        f"## Diagnoses\n\n{counted(found.diagnoses)}\n\n## Sex\n\n{counted(found.sexes)}\n\n"
        f"## Confirmation\n\n{counted(found.confirmations)}\n\n## Body sites\n\n{counted(found.sites)}\n\n"
        f"## Split\n\n{counted(found.splits)}\n"
    )


def _count_values(values: Any) -> dict[str, int]:
    return dict(Counter(value or UNKNOWN for value in values).most_common())
