"""A run's folder: what was trained, on what, for how long, and the table of its epochs."""

import csv
import json
import os
import platform
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from training.config import Config

WEIGHTS = "network.weights.h5"
RECORD = "run.json"
EPOCHS_CSV = "epochs.csv"
EPOCHS_MARKDOWN = "epochs.md"
EVENTS = "tensorboard"
EPOCH_COLUMNS = (
    *("epoch", "size", "loss", "accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy", "rate"),
    *("seconds", "waiting"),
)
"""``waiting``: the share of the time spent waiting for batches."""
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "torch", "jax", "numpy", "pillow", "onnx", "onnxruntime")


class Taken(Exception):
    """Raised when a run would overwrite another's checkpoint."""


class Diverged(Exception):
    """Raised when the loss is no longer a number; what was saved before stands."""


class Unfinished(Exception):
    """Raised when a run has nothing to make a bundle of."""


def record(
    folder: Path,
    config: Config,
    manifest_sha256: str,
    wall_seconds: float,
    *,
    size: int,
    epochs: int,
    further: dict[str, int] | None = None,
) -> None:
    """Write down what stands in ``folder``: configuration, data, machine, packages, time, commit.

    ``size`` and ``epochs`` are those that the weights there have reached, which may not be the last yet. ``further``
    tells how many images of which further sources it saw; what the run goes on from adds its own.
    """
    before = read_record(folder.parent / config.continues) if config.continues else {}
    content = {
        "config": asdict(config),
        "size": size,
        "epochs": epochs,
        "manifest_sha256": manifest_sha256,
        "further": before.get("further", {}) | (further or {}),
        "wall_seconds": round(wall_seconds, 1),
        "hardware": hardware(),
        "packages": packages(),
        "git_commit": git_commit(),
    }
    write_record(folder, content)


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write ``content`` where ``read_record`` reads it."""
    (folder / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """What ``record`` wrote. Raises Unfinished when nothing is there yet."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise _unfinished(folder) from err
    content: dict[str, Any] = json.loads(text)
    return content


def weights(folder: Path) -> Path:
    """The weights after the last finished epoch. Raises Unfinished when there are none."""
    if not (folder / WEIGHTS).exists():
        raise _unfinished(folder)
    return folder / WEIGHTS


def write_epochs(folder: Path, epochs: list[dict[str, float]]) -> None:
    """Write the table of epochs as CSV and as Markdown; columns that no epoch has are left out."""
    present = list(dict.fromkeys(column for epoch in epochs for column in epoch))
    columns = [column for column in EPOCH_COLUMNS if column in present]
    place = columns.index("val_loss") + 1 if "val_loss" in columns else len(columns)
    columns[place:place] = [column for column in present if column.startswith("val_loss_") or "/" in column]
    rows = [[_cell(epoch.get(column)) for column in columns] for epoch in epochs]
    with (folder / EPOCHS_CSV).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    lines = [columns, ["---"] * len(columns), *rows]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    (folder / EPOCHS_MARKDOWN).write_text(text, encoding="utf-8")


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """What ``write_epochs`` wrote. Raises Unfinished when nothing is there yet."""
    try:
        with (folder / EPOCHS_CSV).open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError as err:
        raise _unfinished(folder) from err


def write_events(folder: Path, *epochs: dict[str, float]) -> None:
    """Add epochs to what `tensorboard --logdir runs` shows."""
    from tensorboard.summary import Writer  # here, because it is slow to import and only long runs need it

    writer = Writer(str(folder / EVENTS))
    for epoch in epochs:
        for name, value in epoch.items():
            if name != "epoch":
                writer.add_scalar(name, value, step=int(epoch["epoch"]))
    writer.close()


def hardware() -> str:
    """The machine in words, by what it can do and not by name."""
    return f"{os.cpu_count()} CPU cores, {_processor()}, {platform.machine()}, {accelerator() or 'no GPU used'}"


def accelerator() -> str:
    """The GPU that Keras computes on, by its maker's name; empty without one."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if keras.backend.backend() == "jax":
        import jax

        return next((device.device_kind for device in jax.devices() if device.platform == "gpu"), "")
    import tensorflow

    details = tensorflow.config.experimental.get_device_details
    return next(
        (details(gpu).get("device_name", "a GPU") for gpu in tensorflow.config.list_physical_devices("GPU")), ""
    )


def packages() -> dict[str, str]:
    """Versions of what took part, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit of the working tree, with ``+`` when what trains differs from it; ``unknown`` outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "training/*.py", "dermq/imaging.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else "unknown processor"


def _unfinished(folder: Path) -> Unfinished:
    return Unfinished(f"{folder} holds no finished epoch; run `python -m training train {folder.name}`.")


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
