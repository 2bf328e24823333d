"""Draws figures of the data, the network and an assessment, as PNG and GIF files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import scoring, taxonomy
from training.assess import Assessment

COLOURS = ("#4477aa", "#ee6677", "#228833")
"""From Paul Tol's bright scheme, which people with colour blindness can distinguish."""
WORST = 40
DPI = 110


class Stage(Protocol):
    """The fields of a stage of the network that ``draw_architecture`` draws."""

    @property
    def name(self) -> str: ...
    @property
    def output(self) -> str: ...
    @property
    def parameters(self) -> int: ...


def draw_per_class(assessment: Assessment, path: Path) -> None:
    """Draw precision, recall and F1 of each class as bars, with their intervals."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    places = np.arange(scoring.CLASSES)
    for number, name in enumerate(("precision", "recall", "f1")):
        found = [assessment.figures[f"{name}/{code}"] for code in taxonomy.CODES]
        values = np.array([f.value for f in found])
        spread = np.maximum([values - [f.low for f in found], [f.high for f in found] - values], 0)
        axes.bar(places + 0.27 * (number - 1), values, 0.25, yerr=spread, capsize=2, label=name, color=COLOURS[number])
    axes.set_xticks(places, [f"{code}\n{assessment.support[code]} images" for code in taxonomy.CODES])
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", ncols=3)
    _save(figure, path)


def draw_confusion(probabilities: NDArray[np.floating], truth: NDArray[np.int64], path: Path) -> None:
    """Draw the confusion matrix: shares of each true class, with counts."""
    table = scoring.count_confusions(scoring.decide(probabilities), truth)[:, : scoring.CLASSES]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(6, 5.4), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*table.shape):
        shade = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{share[row, column]:.2f}\n{int(table[row, column])}", None, color=shade, fontsize=8,
                  ha="center", va="center")  # fmt: skip
    axes.set_xticks(range(scoring.CLASSES), taxonomy.CODES)
    axes.set_yticks(range(scoring.CLASSES), taxonomy.CODES)
    axes.set(xlabel="predicted", ylabel="true")
    _save(figure, path)


def draw_roc(probabilities: NDArray[np.floating], truth: NDArray[np.int64], assessment: Assessment, path: Path) -> None:
    """Draw the ROC curve of each class against the rest."""
    figure, axes = plt.subplots(figsize=(6, 5.4), layout="constrained")
    for number, code in enumerate(taxonomy.CODES):
        if (area := assessment.figures.get(f"auroc/{code}")) is not None:
            curve = scoring.trace_roc(probabilities[:, number], truth == number)
            axes.step(curve.false, curve.true, where="post", label=f"{code} {area.value:.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(title="class, area", loc="lower right")
    _save(figure, path)


def draw_reliability(probabilities: NDArray[np.floating], truth: NDArray[np.int64], path: Path) -> None:
    """Draw the reliability diagram, accuracy against confidence, above a histogram of the confidences."""
    place, confidence, right = scoring.sort_into_bins(probabilities, truth)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(5.4, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    filled = [b for b in range(scoring.CALIBRATION_BINS) if (place == b).any()]
    points = [(confidence[place == b].mean(), right[place == b].mean()) for b in filled]
    upper.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    upper.plot(*np.transpose(points), "o-", color=COLOURS[0])
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    lower.hist(confidence, bins=scoring.CALIBRATION_BINS, range=(0, 1), color=COLOURS[0])
    lower.set(xlabel="confidence", ylabel="images")
    _save(figure, path)


def draw_worst(
    images: NDArray[np.uint8],
    names: list[str],
    probabilities: NDArray[np.floating],
    truth: NDArray[np.int64],
    path: Path,
) -> None:
    """Draw a sheet of the images whose true class has the lowest probability."""
    given = probabilities[np.arange(len(truth)), truth]
    chosen = np.argsort(given, kind="stable")[:WORST]
    figure, cells = plt.subplots(-(-WORST // 8), 8, figsize=(14, 10.5), layout="constrained")
    for cell in cells.flat:
        cell.axis("off")
    for cell, row in zip(cells.flat, chosen, strict=False):
        cell.imshow(images[row], aspect=3 / 4)
        decided = taxonomy.CODES[int(probabilities[row].argmax())]
        cell.set_title(f"{names[row]}\n{taxonomy.CODES[truth[row]]} {given[row]:.3f}, said {decided}", fontsize=7)
    _save(figure, path)


def draw_curves(epochs: Sequence[dict[str, float]], restarts: Sequence[int], path: Path) -> None:
    """Draw loss and accuracy by epoch, in training and on val; a dotted line marks the start of the next run."""
    figure, (losses, rates) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, lines in (
        (losses, {"loss": "training", "val_loss": "val"}),
        (rates, {"accuracy": "training", "val_accuracy": "val", "val_balanced_accuracy": "val, balanced"}),
    ):
        for (column, label), colour in zip(lines.items(), COLOURS, strict=False):
            axes.plot([epoch[column] for epoch in epochs], color=colour, marker=".", label=label)
        for restart in restarts:
            axes.axvline(restart - 0.5, color="grey", linestyle=":")
        axes.set_xlabel("epoch")
        axes.legend()
    losses.set_ylabel("loss")
    rates.set_ylabel("accuracy")
    _save(figure, path)


def draw_counts(panels: dict[str, dict[str, int]], path: Path) -> None:
    """Draw counts as bars, a panel for each trait."""
    heights = [len(values) + 1.5 for values in panels.values()]
    figure, axes = plt.subplots(len(panels), 1, figsize=(7, sum(heights) * 0.3), height_ratios=heights, squeeze=False,
                                layout="constrained")  # fmt: skip
    for axis, (trait, values) in zip(axes.flat, panels.items(), strict=True):
        bars = axis.barh(list(values), list(values.values()), color=COLOURS[0])
        total = sum(values.values())
        axis.bar_label(bars, [f"{count:,} ({count / total:.1%})" for count in values.values()], padding=3, fontsize=8)
        axis.set_xlim(0, max(values.values()) * 1.2)
        axis.set_title(trait, loc="left")
        axis.invert_yaxis()
    _save(figure, path)


def draw_ages(years: NDArray[np.float64], codes: list[str], path: Path) -> None:
    """Draw a histogram of the patients' ages, stacked by diagnosis."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    by_code = [years[np.array(codes) == code] for code in taxonomy.CODES]
    axes.hist(by_code, bins=np.arange(0, 95, 5), stacked=True, label=taxonomy.CODES)
    axes.set(xlabel="age in years", ylabel="images")
    axes.legend()
    _save(figure, path)


def draw_architecture(stages: Sequence[Stage], path: Path) -> None:
    """Draw the stages from top to bottom, each as a box with its output shape and parameters."""
    figure, axes = plt.subplots(figsize=(6, 0.42 * len(stages) + 0.4), layout="constrained")
    for place, stage in enumerate(stages):
        label = f"{stage.name}   {stage.output}   {stage.parameters:,} parameters"
        axes.text(0.5, -place, label, ha="center", va="center", fontsize=9,
                  bbox={"boxstyle": "round,pad=0.35", "facecolor": "#e8eef5", "edgecolor": COLOURS[0]})  # fmt: skip
        if place:
            axes.annotate("", (0.5, -place + 0.32), (0.5, -place + 0.68), arrowprops={"arrowstyle": "->"})
    axes.set(xlim=(0, 1), ylim=(-len(stages) + 0.4, 0.6))
    axes.axis("off")
    _save(figure, path)


def draw_variants(rows: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[str], path: Path) -> None:
    """Draw a sheet of rows, each an image and its random variants; the sheet has columns of five rows."""
    across, down = -(-len(rows) // 5), 5
    wide = len(rows[0])
    figure, cells = plt.subplots(
        down, across * wide, figsize=(across * wide * 0.9, down * 0.85), layout="constrained", squeeze=False
    )
    for cell in cells.flat:
        cell.axis("off")
    for number, (row, title) in enumerate(zip(rows, titles, strict=True)):
        column, line = divmod(number, down)
        for place, image in enumerate(row):
            cell = cells[line, column * wide + place]
            cell.imshow(image, aspect=3 / 4)
            if not place:
                cell.set_title(title, fontsize=7)
    _save(figure, path)


def write_animation(frames: Iterable[NDArray[np.uint8]], path: Path, *, frames_per_second: int) -> None:
    """Write a GIF of ``frames``; all use the palette of the first frame."""
    images = (Image.fromarray(frame) for frame in frames)
    first = next(images).quantize(128)
    rest = [image.quantize(palette=first, dither=Image.Dither.NONE) for image in images]
    first.save(path, save_all=True, append_images=rest, duration=1000 // frames_per_second, loop=0)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
