"""Agreement of diagnoses over changes that mean nothing."""

import numpy as np
import pytest
from PIL import Image

from tests.training import samples
from training import agreement, graph_outputs, manifest, onnx_graph


@pytest.fixture
def graph(tmp_path):
    """A graph that sees nothing but the mean of each channel."""
    import keras

    pixels = keras.Input((16, 16, 3), dtype="uint8", name="pixels")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    head = keras.layers.Dense(7)
    said = keras.layers.Softmax()(head(pooled))
    head.set_weights([np.random.default_rng(0).normal(size=(3, 7)) * 9, np.zeros(7)])
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_graph.build(keras.Model(pixels, {graph_outputs.PROBABILITIES: said})).SerializeToString())
    return path


def test_turning_and_mirroring_change_nothing_for_a_network_that_sees_means(tmp_path, graph):
    found = agreement.measure(graph, 16, samples.prepare(tmp_path))
    assert list(found) == list(agreement.CHANGES)
    for name, one in found.items():
        assert one.images == 7
        if "turned" in name or "mirrored" in name:
            assert one.equal == 1.0
            assert one.moved == pytest.approx(0, abs=1e-3)
    assert found["stored again as JPEG of quality 50"].moved > found["stored again as JPEG of quality 95"].moved > 0


def test_originals_are_compared_with_what_was_made_of_them(tmp_path, graph):
    samples.prepare(tmp_path)
    originals = tmp_path / "originals"
    originals.mkdir()
    for name, content in manifest.read_files([tmp_path / "tiny.zip"]):
        if name == "mel-0.png":
            (originals / name).write_bytes(content)
        if name == "nv-5.png":  # of test, and of another colour than its reduced copy
            Image.new("RGB", (40, 30), (255, 255, 0)).save(originals / name)
    places = {"tiny": [tmp_path / "tiny.zip"], agreement.ORIGINALS: [originals]}
    found = agreement.measure(graph, 16, manifest.prepare(tmp_path / "metadata.csv", places))
    one = found["originals_600x450 against tiny"]
    assert (one.images, one.equal) == (2, 0.5)
    assert one.moved > 0.1
