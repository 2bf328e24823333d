"""The mean of runs is the mean of their weights, and its record names the runs."""

from pathlib import Path

import numpy as np
import pytest

from tests.training import samples
from training import runs, soup


def test_the_mean_of_two_networks(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        network = samples.network(16, "none")
        network.set_weights(
            [weight + number if weight.dtype == np.float32 else weight for weight in network.get_weights()]
        )
        made.append(network.get_weights())
        (tmp_path / str(number)).mkdir()
        network.save_weights(tmp_path / str(number) / runs.WEIGHTS)
    soup.average(network, [tmp_path / "0", tmp_path / "1"])
    for first, second, found in zip(*made, network.get_weights(), strict=True):
        assert found.dtype == first.dtype
        assert np.allclose(found, (first + second) / 2 if first.dtype == np.float32 else first)


def test_the_record_adds_the_time_up_and_names_the_runs(tmp_path: Path) -> None:
    for name, seconds in (("first", 10.0), ("again", 20.5), ("soup", 0.0)):
        (tmp_path / name).mkdir()
        config = {"name": name, "description": "Trained.", "start": "none"}
        runs.write_record(tmp_path / name, {"config": config, "wall_seconds": seconds, "size": 16})
    soup.record([tmp_path / "first", tmp_path / "again"], tmp_path / "soup")
    found = runs.read_record(tmp_path / "soup")
    assert (found["wall_seconds"], found["size"], found["config"]["name"]) == (30.5, 16, "soup")
    assert found["config"]["description"] == "Trained. These are the mean weights of the runs `first` and `again`."
    with pytest.raises(runs.Unfinished):
        soup.record([tmp_path / "missing"], tmp_path / "soup")
