"""The worker's Keras engine: for the same bundle and golden inputs, its diagnoses equal those of ONNX Runtime."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dermq import bundles, imaging
from dermq.settings import ROOT
from worker.classify import engines, model

IMAGES = 48


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.find_current(ROOT / "bundles")


@pytest.fixture(scope="module")
def keras_engine(bundle: bundles.Bundle) -> engines.Engine:
    return model.load(bundle, engines.create("keras", step_images=16)).engine


def test_a_part_of_a_step_is_predicted_like_a_whole_one(bundle: bundles.Bundle, keras_engine: engines.Engine) -> None:
    size = bundle.card.input_size
    pixels = np.random.default_rng(7).integers(0, 255, (19, size, size, 3), dtype=np.uint8)
    whole, part = keras_engine.predict(pixels), keras_engine.predict(pixels[16:])
    assert whole.probabilities.shape == (19, 7) and whole.ood_scores.shape == (19,)
    assert np.allclose(whole.probabilities[16:], part.probabilities, atol=1e-5)


def test_both_engines_give_the_same_diagnoses_of_real_images(
    shared: Path, bundle: bundles.Bundle, keras_engine: engines.Engine
) -> None:
    with zipfile.ZipFile(shared / "ham10000" / "originals_600x450.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")][:IMAGES]
        pixels = np.stack([imaging.prepare(archive.read(name), bundle.card.input_size) for name in names])
    onnx_engine = model.load(bundle, engines.create("onnx", step_images=16)).engine
    by_keras, by_onnx = keras_engine.predict(pixels), onnx_engine.predict(pixels)
    assert np.abs(by_keras.probabilities - by_onnx.probabilities).max() < 1e-4
    assert (by_keras.probabilities.argmax(axis=1) == by_onnx.probabilities.argmax(axis=1)).all()
    assert np.allclose(by_keras.ood_scores, by_onnx.ood_scores, atol=1e-3)


def test_auto_takes_onnx_where_no_gpu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, name in ((False, "onnx"), (True, "keras")):
        monkeypatch.setattr(engines, "_find_gpu", lambda gpu=gpu: gpu)
        assert engines.create("auto", step_images=4).name == name
