"""The folder of a run: the record of the run, its weights and the table of its epochs."""

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
"""The first columns of the table. ``waiting`` is the share of the time that was spent waiting for batches."""
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "torch", "jax", "numpy", "pillow", "onnx", "onnxruntime")


class Taken(Exception):
    """Raised when a run would overwrite the checkpoint of another run."""


class Diverged(Exception):
    """Raised when the loss is not finite. Earlier checkpoints are kept."""


class Unfinished(Exception):
    """Raised when a run has no finished epoch to export."""


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
    """Write the record of the run in ``folder``: configuration, data, machine, packages, time, commit.

    ``size`` and ``epochs`` are those of the weights in ``folder``; the run may not be finished. ``further`` holds the
    number of images of each further source. The sources of the run that this run continues are added.
    """
    before = read_record(folder.parent / config.continues) if config.continues else {}
    content = {
        "config": asdict(config),
        "size": size,
        "epochs": epochs,
        "manifest_sha256": manifest_sha256,
        "further": before.get("further", {}) | (further or {}),
        "wall_seconds": round(wall_seconds, 1),
        "hardware": describe_hardware(),
        "packages": list_packages(),
        "git_commit": find_git_commit(),
    }
    write_record(folder, content)


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as the record in ``folder``."""
    (folder / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record in ``folder``. Raises Unfinished when there is none yet."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise _unfinished(folder) from err
    content: dict[str, Any] = json.loads(text)
    return content


def find_weights(folder: Path) -> Path:
    """Return the path of the weights after the last finished epoch. Raises Unfinished when there are none."""
    if not (folder / WEIGHTS).exists():
        raise _unfinished(folder)
    return folder / WEIGHTS


def write_epochs(folder: Path, epochs: list[dict[str, float]]) -> None:
    """Write the table of epochs as CSV and as Markdown, without columns that no epoch has."""
    present = list(dict.fromkeys(column for epoch in epochs for column in epoch))
    columns = [column for column in EPOCH_COLUMNS if column in present]
    place = columns.index("val_loss") + 1 if "val_loss" in columns else len(columns)
    columns[place:place] = [column for column in present if column.startswith("val_loss_") or "/" in column]
    rows = [[_format_cell(epoch.get(column)) for column in columns] for epoch in epochs]
    with (folder / EPOCHS_CSV).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    lines = [columns, ["---"] * len(columns), *rows]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    (folder / EPOCHS_MARKDOWN).write_text(text, encoding="utf-8")


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """Read the table of epochs in ``folder``. Raises Unfinished when there is none yet."""
    try:
        with (folder / EPOCHS_CSV).open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError as err:
        raise _unfinished(folder) from err


def write_events(folder: Path, *epochs: dict[str, float]) -> None:
    """Write epochs as events, which `tensorboard --logdir runs` shows."""
    from tensorboard.summary import Writer  # imported here, because the import is slow and only runs need it

    writer = Writer(str(folder / EVENTS))
    for epoch in epochs:
        for name, value in epoch.items():
            if name != "epoch":
                writer.add_scalar(name, value, step=int(epoch["epoch"]))
    writer.close()


def describe_hardware() -> str:
    """Describe the machine by its processor, cores and GPU, without its name."""
    return (
        f"{os.cpu_count()} CPU cores, {_find_processor()}, {platform.machine()}, {find_accelerator() or 'no GPU used'}"
    )


def find_accelerator() -> str:
    """Return the product name of the GPU that Keras computes on; empty without a GPU."""
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


def list_packages() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect training."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def find_git_commit() -> str:
    """Return the commit, with ``+`` when the files of training are changed; ``unknown`` outside a git repository."""
    try:
        commit = _run_git("rev-parse", "HEAD")
        changed = _run_git("status", "--porcelain", "--", "training/*.py", "dermq/imaging.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _run_git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else "unknown processor"


def _unfinished(folder: Path) -> Unfinished:
    return Unfinished(f"{folder} holds no finished epoch. Run `python -m training train {folder.name}`.")


def _format_cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
