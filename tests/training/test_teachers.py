"""Teachers give a part of the targets, and see the images of the run that they teach at their own size."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tests.training import samples
from training import augment, batches, finetune, manifest, runs, teachers
from training import checkpoint as checkpoints
from training.config import Config, Finetune, Phase

PLAN = Finetune(phases=(Phase(16, 1), Phase(24, 1)), batch=4, rate=0.02, warmup_epochs=0.5, epoch_images=40)
CONFIG = Config(name="pupil", size=24, start="none", plan=PLAN)
MASTER = Config(name="master", size=32, start="none", plan=dataclasses.replace(PLAN, phases=(Phase(32, 1),)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, manifest.Manifest]:
    """Return the folder of runs, with a finished run ``master`` of 32 px, and the manifest."""
    folder = tmp_path_factory.mktemp("runs")
    entries = samples.prepare(folder)
    assert train(MASTER, folder, entries)
    return folder, entries


def train(chosen: Config, folder: Path, entries: manifest.Manifest, stop: Any = lambda place: False) -> bool:
    (folder / chosen.name).mkdir(exist_ok=True)
    return finetune.train(chosen, entries, folder / "pixels", folder / chosen.name, stop=stop, build=samples.network)


def taught(name: str, *by: str) -> Config:
    return dataclasses.replace(CONFIG, name=name, plan=dataclasses.replace(PLAN, teachers=by, teachers_share=0.7))


def weights(folder: Path) -> list[Any]:
    found = checkpoints.load(folder)
    assert found
    return found.weights


def test_teachers_give_a_part_of_the_target(made: tuple[Path, manifest.Manifest]) -> None:
    chance = np.random.default_rng(0)
    views = {size: chance.integers(0, 256, (3, size, size, 3), np.uint8) for size in (16, 32)}
    network = samples.network(32, "none")
    network.load_weights(runs.find_weights(made[0] / "master"))
    said = keras.ops.convert_to_numpy(keras.ops.softmax(network.predict(views[32], verbose=0)))
    teacher = teachers.read(made[0] / "master", samples.network)
    known = np.eye(7)[[0, 4, 6]]
    assert teachers.blend(views, known, [teacher], 0.7) == pytest.approx(0.3 * known + 0.7 * said, abs=1e-5)
    even = teachers.Teacher(16, lambda images: np.full((3, 7), images.shape[1] / 112))
    two = teachers.blend(views, known, [teacher, even], 0.7)
    assert two == pytest.approx(0.3 * known + 0.35 * said + 0.05, abs=1e-5)
    assert teachers.blend(views, known, [], 0.7) == pytest.approx(known)


def test_a_teacher_of_another_size_changes_what_is_learned(made: tuple[Path, manifest.Manifest]) -> None:
    assert train(taught("pupil", "master"), *made)
    assert train(taught("alone"), *made)
    pairs = zip(weights(made[0] / "pupil"), weights(made[0] / "alone"), strict=True)
    assert not all(np.array_equal(one, other) for one, other in pairs)


def test_a_run_with_teachers_resumes_exactly(made: tuple[Path, manifest.Manifest]) -> None:
    assert train(taught("whole", "master"), *made)
    assert not train(taught("broken", "master"), *made, stop=lambda place: (place.epoch, place.step) == (1, 3))
    assert train(taught("broken", "master"), *made)
    pairs = zip(weights(made[0] / "whole"), weights(made[0] / "broken"), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_teacher_that_is_not_there_is_named(made: tuple[Path, manifest.Manifest]) -> None:
    with pytest.raises(runs.Unfinished, match="nobody"):
        train(taught("pupil", "nobody"), *made)


def test_views_are_of_the_same_images_and_targets(made: tuple[Path, manifest.Manifest]) -> None:
    folder, entries = made
    streams = {
        size: batches.make_stream(entries, size, folder / "pixels", batch=4, images=40, class_balance=0.5,
                             sharp_share=0.3, seed=1, mixup=0.2)
        for size in (16, 32)
    }  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        found = list(teachers.run_streams(streams, 2, 3, executor))
    assert len(found) == 7
    for step, (views, known) in enumerate(found, start=3):
        for size, stream in streams.items():
            images, targets = stream.make(2, step)
            assert views[size].shape == (4, size, size, 3)
            assert np.array_equal(views[size], images) and np.array_equal(known, targets)


@pytest.mark.parametrize("kind", augment.KINDS)
def test_an_augmentation_makes_the_same_change_at_every_size(kind: str) -> None:
    """Blur, resolution and JPEG differ by design, so means of blocks are compared."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
    small, large = (np.asarray(picture.resize((side, side), Image.Resampling.BOX)) for side in (96, 192))
    change = augment.KINDS[kind]
    same, other = [], []
    for seed in range(20):
        one = blocks(change(small.copy(), np.random.default_rng(seed)))
        same.append(np.abs(one - blocks(change(large.copy(), np.random.default_rng(seed)))).mean())
        other.append(np.abs(one - blocks(change(large.copy(), np.random.default_rng(seed + 100)))).mean())
    assert max(same) < 0.2 * np.mean(other)


def blocks(image: Any) -> Any:
    """Return the means of 12 x 12 blocks."""
    side = len(image) // 12
    return image.reshape(12, side, 12, side, 3).astype(float).mean((1, 3))
