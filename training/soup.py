"""Averages the weights of runs that continue one another; the result is one network, as fast as each of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022. The weights must lie in one basin of the loss, as those of a run and its continuation do.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import runs


def average(network: Any, folders: list[Path]) -> None:
    """Set the weights of ``network`` to the mean of the last weights of the runs in ``folders``. Raises Unfinished."""
    weights = []
    for folder in folders:
        network.load_weights(runs.find_weights(folder))
        weights.append(network.get_weights())
    network.set_weights([_average_arrays(same) for same in zip(*weights, strict=True)])


def record(folders: list[Path], folder: Path) -> dict[str, Any]:
    """Write the record of the mean to ``folder``: the last run's, with the time of all runs. Raises Unfinished."""
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


def _average_arrays(same: tuple[NDArray[Any], ...]) -> NDArray[Any]:
    """Return the mean of floats. The normalisation's count of images is an integer and is equal in all runs."""
    return np.mean(same, axis=0) if np.issubdtype(same[0].dtype, np.floating) else same[0]
