"""Predictions for val, from every source."""

from pathlib import Path

import numpy as np
import pytest

from tests.training import samples
from training import evaluate, manifest, model, onnx_graph, runs


def test_val_is_judged_in_every_source_that_shows_some_of_it_and_cut_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "CUT", ("tiny",))
    samples.prepare(tmp_path, further=True)
    some = tmp_path / "some"
    some.mkdir()
    for name in ("nv-4.png", "mel-4.png", "mel-0.png"):
        (some / name).write_bytes(dict(manifest.read_files([tmp_path / "tiny.zip"]))[name])
    places = {"tiny": [tmp_path / "tiny.zip"], "some": [some], "isic2019": [tmp_path / "isic2019"]}
    made = manifest.prepare(tmp_path / "metadata.csv", places)
    graph = onnx_graph.build(model.name_logits(samples.network(16, "none"))).SerializeToString()
    seen = evaluate.predict_val_by_source(graph, 16, made, tmp_path / "pixels")
    assert list(seen) == ["tiny", "tiny centre", "some"]  # isic2019 is missing, because it has no val
    assert [len(truth) for _, truth in seen.values()] == [7, 7, 2]
    assert not np.allclose(seen["tiny"][0], seen["tiny centre"][0])
    assert all(np.allclose(said.sum(axis=1), 1) for said, _ in seen.values())


def test_the_table_of_epochs_has_the_loss_of_every_source(tmp_path: Path) -> None:
    losses = {"val_loss": 0.5, "val_loss_mean": 0.6, "val_loss/sharp": 0.7}
    runs.write_epochs(tmp_path, [{"epoch": 0, "loss": 1.0} | losses | {"val_accuracy": 0.8}])
    head, row = (tmp_path / runs.EPOCHS_CSV).read_text().splitlines()
    assert head == "epoch,loss,val_loss,val_loss_mean,val_loss/sharp,val_accuracy"
    assert row == "0,1,0.5,0.6,0.7,0.8"
    assert runs.read_epochs(tmp_path)[0]["val_loss/sharp"] == 0.7
