"""The mean of the weights of runs that went on from each other: one network, as fast as each of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022. It needs runs in one basin of the loss, which a run and its continuation are in.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import runs


def mean(network: Any, folders: list[Path]) -> None:
    """Put the mean of the last weights of the runs in ``folders`` into ``network``. Raises Unfinished."""
    weights = []
    for folder in folders:
        network.load_weights(runs.weights(folder))
        weights.append(network.get_weights())
    network.set_weights([_mean(same) for same in zip(*weights, strict=True)])


def record(folders: list[Path], folder: Path) -> dict[str, Any]:
    """Write down in ``folder`` what it is the mean of: the last run's record, the time of all. Raises Unfinished."""
    records = [runs.read_record(one) for one in folders]
    names = " and ".join(f"`{one.name}`" for one in folders)
    last = records[-1]
    config = last["config"] | {
        "name": folder.name,
        "description": f"{last['config']['description']} These are the mean weights of the runs {names}.",
    }
    content = last | {"config": config, "wall_seconds": round(sum(one["wall_seconds"] for one in records), 1)}
    runs.write_record(folder, content)
    return content


def _mean(same: tuple[NDArray[Any], ...]) -> NDArray[Any]:
    """Of floats; the normalisation's count of images is an integer, and is the same in all."""
    return np.mean(same, axis=0) if np.issubdtype(same[0].dtype, np.floating) else same[0]
