"""Training of the whole network: it learns, stops, resumes exactly, and rejects invalid start states."""

import csv
import dataclasses
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from tests.training import samples
from training import checkpoint, config, finetune, learner, manifest, onnx_run, runs
from training.config import Config, Finetune, Head, Phase

PLAN = Finetune(
    phases=(Phase(16, 2), Phase(24, 1)), batch=4, rate=0.02, warmup_epochs=0.5, average_decay=0.9, epoch_images=40
)
CONFIG = Config(name="tiny", size=24, start="none", plan=PLAN)


def run(folder: Path, chosen: Any = CONFIG, stop: Any = lambda place: False) -> Any:
    data = folder.parent / "data"
    data.mkdir(exist_ok=True)
    made = samples.prepare(data)
    folder.mkdir(exist_ok=True)
    return finetune.train(chosen, made, data / "pixels", folder, stop=stop, build=samples.network)


def read_checkpoint(folder: Path) -> checkpoint.Checkpoint:
    """Return the checkpoint in ``folder``, which must exist."""
    found = checkpoint.load(folder)
    assert found is not None
    return found


def test_an_epoch_is_a_row_of_the_table(tmp_path: Path) -> None:
    assert run(tmp_path / "run")
    with (tmp_path / "run" / runs.EPOCHS_CSV).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["size"]) for row in rows] == [("0", "16"), ("1", "16"), ("2", "24")]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    assert all(float(row["seconds"]) > 0 <= float(row["waiting"]) < 1 for row in rows)
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / runs.EVENTS))
    events.Reload()
    # Files of one second are read in the order of their names, in which 10 comes before 9.
    assert sorted(event.step for event in events.Tensors("val_loss")) == [0, 1, 2]
    record = runs.read_record(tmp_path / "run")
    assert (record["size"], record["epochs"]) == (24, 3)


@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (1, 10), (2, 5)])
def test_a_stopped_run_resumes_exactly(tmp_path: Path, epoch: int, step: int) -> None:
    assert run(tmp_path / "whole")
    assert not run(tmp_path / "broken", stop=lambda place: (place.epoch, place.step) == (epoch, step))
    assert run(tmp_path / "broken")
    whole, broken = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "broken")
    for kind in ("weights", "average", "optimizer", "seeds"):
        for expected, found in zip(getattr(whole, kind), getattr(broken, kind), strict=True):
            assert np.array_equal(expected, found), kind
    same = ("epoch", "size", "loss", "accuracy", "val_loss", "rate")
    assert [[row[name] for name in same] for row in whole.epochs] == [
        [row[name] for name in same] for row in broken.epochs
    ]


def test_a_run_continues_from_the_last_weights_of_another(tmp_path: Path) -> None:
    assert run(tmp_path / "tiny")
    still = dataclasses.replace(PLAN, phases=(Phase(24, 1),), rate=1e-12, final_rate=1e-12, weight_decay=0.0)
    assert run(tmp_path / "again", dataclasses.replace(CONFIG, name="again", continues="tiny", plan=still))
    first, again = read_checkpoint(tmp_path / "tiny"), read_checkpoint(tmp_path / "again")
    assert (again.place.epoch, len(again.epochs)) == (1, 1)
    network = samples.network(24, "none")
    trained = [weight.path for weight in network.trainable_weights]
    pairs = zip(network.weights, first.average, again.weights, strict=True)
    assert all(np.allclose(old, new, atol=1e-6) for weight, old, new in pairs if weight.path in trained)


def test_a_run_tells_which_further_images_it_and_the_run_before_it_saw(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = samples.prepare(tmp_path / "data", further=True)
    first = dataclasses.replace(CONFIG, plan=dataclasses.replace(PLAN, further=("isic2019",), through=8, mixup=0.2))
    for chosen in (first, dataclasses.replace(CONFIG, name="second", continues="tiny")):
        folder = tmp_path / chosen.name
        folder.mkdir()
        assert finetune.train(chosen, made, tmp_path / "pixels", folder, build=samples.network)
        assert runs.read_record(folder)["further"] == {"isic2019": 7}


def test_a_run_without_its_start_weights_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(runs.Unfinished, match="training train missing"):
        run(tmp_path / "again", dataclasses.replace(CONFIG, continues="missing"))


def test_the_dropout_resumes_where_it_stopped(tmp_path: Path) -> None:
    run(tmp_path / "run", stop=lambda place: place.step == 2)
    state = read_checkpoint(tmp_path / "run")
    fresh = learner.make_learner(samples.network(16, "none", dropout=0.3), PLAN, seed=2)
    assert state.seeds
    before = fresh.seeds()
    finetune.restore(fresh, state)
    after = fresh.seeds()
    assert all(np.array_equal(a, b) for a, b in zip(after, state.seeds, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def plan_of(chosen: Config) -> Finetune:
    """Return the plan of ``chosen``, which must train the whole network."""
    assert isinstance(chosen.plan, Finetune)
    return chosen.plan


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    wild = dataclasses.replace(CONFIG, plan=dataclasses.replace(PLAN, rate=float("nan")))
    with pytest.raises(runs.Diverged, match="nan"):
        run(tmp_path / "run", wild)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint.Checkpoint(checkpoint.Place(epoch=1), [], [np.ones(3)], [np.ones(3)], [], [])
    checkpoint.save(tmp_path, state)

    def torn(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, state)
    assert read_checkpoint(tmp_path).place.epoch == 1


@pytest.fixture
def policy() -> Iterator[Any]:
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("policy")
def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path) -> None:
    data = samples.prepare(tmp_path)
    (tmp_path / "run").mkdir()
    short = dataclasses.replace(CONFIG, plan=dataclasses.replace(PLAN, phases=(Phase(16, 1),)))
    settings: dict[str, Any] = {"precision": "mixed_bfloat16", "build": samples.network}
    assert finetune.train(short, data, tmp_path / "pixels", tmp_path / "run", **settings)
    if keras.backend.backend() != "torch":  # there the learner casts, not Keras
        assert keras.config.dtype_policy().compute_dtype == "bfloat16"
    kinds = {weight.dtype for weight in read_checkpoint(tmp_path / "run").weights}
    assert kinds <= {np.dtype("float32"), np.dtype("int64"), np.dtype("int32")}


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    plan = Finetune(phases=(Phase(16, 5), Phase(32, 6)), rate=1.0, final_rate=0.1, warmup_epochs=1)
    rates = [finetune.compute_learning_rate(plan, epochs / 4) for epochs in range(45)]
    assert rates[0] < rates[2] < rates[4] == 1.0
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[4:]))
    assert finetune.compute_learning_rate(plan, 6) == pytest.approx(0.55)
    assert rates[44] == pytest.approx(0.1)


def test_the_size_follows_the_phases() -> None:
    assert [finetune.find_phase_size(PLAN, epoch) for epoch in range(5)] == [16, 16, 24, 24, 24]


def test_the_head_is_trained_first_when_the_plan_says_so(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, head=Head(epochs=3, batch=8, penalty=0.0, plateau_patience=1))
    assert run(tmp_path / "run", dataclasses.replace(CONFIG, plan=plan))
    with (tmp_path / "run" / "head" / runs.EPOCHS_CSV).open() as file:
        epochs = list(csv.DictReader(file))
    assert [float(epoch["rate"]) for epoch in epochs[:1]] == pytest.approx([1e-3])
    assert len(epochs) == 3
    assert list((tmp_path / "run" / "head" / runs.EVENTS).iterdir())


def test_a_loss_of_the_head_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, head=Head(epochs=3, batch=8, rate=float("nan")))
    with pytest.raises(runs.Diverged, match="rate nan"):
        run(tmp_path / "run", dataclasses.replace(CONFIG, plan=plan))
    assert not (tmp_path / "run" / runs.WEIGHTS).exists()


def test_the_machine_is_described_with_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.describe_hardware().endswith(runs.find_accelerator() or "no GPU used")
    monkeypatch.setattr(runs, "find_accelerator", lambda: "NVIDIA H100")
    assert runs.describe_hardware().endswith(", NVIDIA H100")


def test_both_splits_of_the_published_recipe_run_through_on_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, data = samples.prepare(tmp_path), tmp_path / "pixels"
    computed = []
    run_graph = onnx_run.run
    monkeypatch.setattr(
        onnx_run,
        "run",
        lambda graph, images, **rest: computed.append(len(images)) or run_graph(graph, images, **rest),
    )
    for name, split in (("published", made), ("published_by_image", manifest.split_by_image(made))):
        published = config.load(name)
        plan = dataclasses.replace(plan_of(published), phases=(Phase(16, 4),), batch=4, epoch_images=8)
        short = dataclasses.replace(published, size=16, plan=plan)
        (tmp_path / name).mkdir()
        assert finetune.train(short, split, data, tmp_path / name, build=samples.network)
        assert len((tmp_path / name / runs.EPOCHS_CSV).read_text().splitlines()) == 1 + 4
        assert len((tmp_path / name / "head" / runs.EPOCHS_CSV).read_text().splitlines()) == 1 + 15
    assert computed.count(len(made.entries)) == len(list(data.glob("features-*.npy"))) == 1


def test_the_published_rate_falls_to_one_in_a_hundred_million() -> None:
    plan = plan_of(config.load("published"))
    rates = [finetune.compute_learning_rate(plan, epochs) for epochs in range(5)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(1e-8)
    assert all(earlier > later for earlier, later in itertools.pairwise(rates))


def test_every_configuration_states_its_command_and_cost() -> None:
    for name in config.list_names():
        module = importlib.import_module(f"training.configs.{name}")
        told, chosen = module.__doc__ or "", config.load(name)
        assert f"python -m training train {name}" in told
        assert "Cost:" in told
        assert "Expected" in told
        assert chosen.name == name
        assert isinstance(chosen.plan, Head) or chosen.size == chosen.plan.phases[-1].size
