"""A checkpoint: everything that a training run needs to go on exactly where it stood.

Weights, their moving average, the optimizer's variables, the random state of the dropouts, the place in the stream,
and the table of epochs, in one file that is replaced atomically: a kill at any moment leaves the old or the new one.
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
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    """Steps of this epoch that are done."""
    loss_sum: float = 0.0
    """Over the done steps of this epoch, as the rest below."""
    accuracy_sum: float = 0.0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    """Of those, spent waiting for batches."""


@dataclass
class Checkpoint:
    """The content of the file."""

    place: Place
    epochs: list[dict[str, float]]
    average: list[NDArray[Any]]
    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    seeds: list[NDArray[Any]]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in ``folder``."""
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
    """The checkpoint in ``folder``, if there is one."""
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
