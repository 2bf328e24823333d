"""A checkpoint holds everything that an exact resume of a training run needs.

It contains the weights, their moving average, the optimizer's variables, the random state of dropout, the place in the
stream, and the table of epochs. The file is replaced atomically, so a kill leaves either the old or the new file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "checkpoint.npz"


@dataclass
class Place:
    """The position of a run, and its sums over the steps of the current epoch."""

    epoch: int = 0
    step: int = 0
    """The number of finished steps in this epoch."""
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    """The part of ``seconds`` that was spent waiting for batches."""


@dataclass
class Checkpoint:
    """The content of a checkpoint file."""

    place: Place
    epochs: list[dict[str, float]]
    average: list[NDArray[Any]]
    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    seeds: list[NDArray[Any]]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to ``folder`` and replace an older one atomically."""
    arrays = {
        f"{kind}/{number}": array
        for kind in ("average", "weights", "optimizer", "seeds")
        for number, array in enumerate(getattr(checkpoint, kind))
    }
    text = json.dumps({"place": vars(checkpoint.place), "epochs": checkpoint.epochs})
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, text=np.array(text), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE)


def load(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in ``folder``, or None when there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    with np.load(path) as stored:
        text = json.loads(str(stored["text"]))
        lists: dict[str, list[NDArray[Any]]] = {"average": [], "weights": [], "optimizer": [], "seeds": []}
        for key in stored.files:
            if key != "text":
                lists[key.split("/")[0]].append(stored[key])
    return Checkpoint(place=Place(**text["place"]), epochs=text["epochs"], **lists)
