"""Export: the ONNX graph and the Keras file give the same outputs, and a bundle's card is correct."""

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermq import bundles, imaging, taxonomy
from tests.training import samples
from training import (
    calibrate,
    datasets,
    decision,
    evaluate,
    export,
    graph_outputs,
    model,
    onnx_graph,
    onnx_run,
    pictures,
    strangeness,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

ROOT = Path(__file__).parents[2]
REAL_IMAGES = 256
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def shipped() -> Any:
    return bundles.find_current(ROOT / "bundles")


def real_images(shared: Path, size: int) -> Any:
    """Return real images ``(256, s, s, 3)`` from all parts of the dataset."""
    with zipfile.ZipFile(shared / "ham10000" / "full_200x150.zip") as archive:
        names = sorted(archive.namelist())
        chosen = names[:: len(names) // REAL_IMAGES][:REAL_IMAGES]
        return np.stack([imaging.prepare(archive.read(name), size) for name in chosen])


@pytest.fixture(scope="module")
def lesions(shared: Path, shipped: Any) -> Any:
    return real_images(shared, shipped.card.input_size)


def test_onnx_and_keras_agree_on_real_images(shipped: Any, lesions: Any) -> None:
    loaded = keras.saving.load_model(shipped.path / bundles.KERAS_MODEL)
    keras_outputs = loaded.predict(lesions, batch_size=32, verbose=0)
    onnx_outputs = onnx_run.run(shipped.path / bundles.ONNX_MODEL, lesions)
    assert set(keras_outputs) == set(onnx_outputs) >= {graph_outputs.PROBABILITIES, graph_outputs.OOD_SCORE}
    for name, expected in onnx_outputs.items():
        assert expected.dtype == np.float32
        assert np.abs(keras_outputs[name] - expected).max() < TOLERANCE
    assert np.array_equal(
        keras_outputs[graph_outputs.PROBABILITIES].argmax(axis=1),
        onnx_outputs[graph_outputs.PROBABILITIES].argmax(axis=1),
    )
    assert len(set(onnx_outputs[graph_outputs.PROBABILITIES].argmax(axis=1))) >= 3


def test_probabilities_sum_to_one_in_any_batch(shipped: Any, lesions: Any) -> None:
    path = shipped.path / bundles.ONNX_MODEL
    whole = onnx_run.run(path, lesions[:5])[graph_outputs.PROBABILITIES]
    single = np.concatenate([onnx_run.run(path, lesions[n : n + 1])[graph_outputs.PROBABILITIES] for n in range(5)])
    assert whole.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.abs(whole - single).max() < TOLERANCE


def test_the_golden_outputs_are_what_the_onnx_graph_computes(shipped: Any) -> None:
    golden = np.load(shipped.path / bundles.GOLDEN)
    outputs = onnx_run.run(shipped.path / bundles.ONNX_MODEL, golden["pixels"])
    for name, found in outputs.items():
        assert np.abs(found - golden[name]).max() < 1e-5


def test_the_golden_inputs_are_generated_and_public_domain_pictures(shipped: Any) -> None:
    golden = np.load(shipped.path / bundles.GOLDEN)
    drawn = pictures.draw_golden(shipped.card.input_size, recipe_version=shipped.card.recipe.version)
    assert np.array_equal(golden["pixels"], drawn)


def test_the_card_states_its_files_and_figures(shipped: Any) -> None:
    bundles.verify_files(shipped)
    card = shipped.card
    assert card.classes == taxonomy.CODES
    assert card.training_data.images == {"train": 7155, "val": 809, "test": 2051}
    assert card.metrics["test"].images == 2051
    assert set(card.metrics["test"].recall) == set(taxonomy.CODES)
    assert datasets.HAM10000.citation in card.training_data.citation
    assert all((shipped.path / name).stat().st_size < 50e6 for name in bundles.FILES)


@pytest.fixture(scope="module")
def small() -> Any:
    """A network at 64 px with random weights, and with batch norm statistics and biases other than the defaults."""
    keras.utils.set_random_seed(0)
    network = model.build_network(64, "none")
    chance = np.random.default_rng(0)
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([chance.uniform(0.7, 1.3, weight.shape) for weight in layer.get_weights()])
    return network


def test_the_graph_folds_every_batch_normalisation_and_keeps_the_logits(small: Any) -> None:
    images = pictures.draw_golden(64)
    graph = onnx_graph.build(model.name_logits(small))
    found = onnx_run.run(graph.SerializeToString(), images)[graph_outputs.LOGITS]
    assert found == pytest.approx(small.predict(images, verbose=0), abs=1e-4)
    assert {node.op_type for node in graph.graph.node}.isdisjoint({"BatchNormalization"})


def test_the_graph_of_the_network_for_comparison_keeps_its_logits_too() -> None:
    keras.utils.set_random_seed(0)
    network = model.build_network(64, "none", backbone="efficientnetv2b0")
    images = pictures.draw_golden(64)
    found = onnx_run.run(onnx_graph.build(model.name_logits(network)).SerializeToString(), images)[graph_outputs.LOGITS]
    assert np.ptp(found, axis=0).max() > 0
    assert found == pytest.approx(network.predict(images, verbose=0), abs=1e-4)


@pytest.mark.parametrize("size", [16, 17])
def test_a_strided_convolution_is_padded_as_tensorflow_pads(size: int) -> None:
    network = samples.network(size, "none")
    images = pictures.draw_golden(size)
    found = onnx_run.run(onnx_graph.build(model.name_logits(network)).SerializeToString(), images)[graph_outputs.LOGITS]
    assert found == pytest.approx(network.predict(images, verbose=0), abs=1e-5)


@pytest.fixture
def unfolded(small: Any) -> Iterator[Any]:
    """``small``, whose last layer is restored after the test."""
    head = small.get_layer(graph_outputs.LOGITS)
    before = head.get_weights()
    yield small
    head.set_weights(before)


def test_shift_and_temperature_are_folded_into_the_shipped_form_once(unfolded: Any) -> None:
    images = pictures.draw_golden(64)
    logits = unfolded.predict(images, verbose=0)
    shift = np.linspace(-1, 1, 7)
    outputs = model.ship(unfolded, shift=shift, temperature=2.5).predict(images, verbose=0)
    assert outputs[graph_outputs.PROBABILITIES] == pytest.approx(
        calibrate.apply_softmax((logits + shift) / 2.5), abs=1e-5
    )


def test_no_shift_and_no_temperature_change_nothing(unfolded: Any) -> None:
    images = pictures.draw_golden(64)
    logits = unfolded.predict(images, verbose=0)
    outputs = model.ship(unfolded).predict(images, verbose=0)
    assert outputs[graph_outputs.PROBABILITIES] == pytest.approx(calibrate.apply_softmax(logits), abs=1e-6)


def test_the_mean_of_the_class_maps_is_what_the_softmax_is_taken_of(unfolded: Any) -> None:
    images = pictures.draw_golden(64)
    shipped = model.ship(unfolded, shift=np.linspace(-1, 1, 7), temperature=2.5)
    by_keras = shipped.predict(images, verbose=0)
    by_onnx = onnx_run.run(onnx_graph.build(shipped).SerializeToString(), images)
    maps = by_onnx[graph_outputs.CLASS_MAPS]
    assert maps.shape == (8, 2, 2, 7)
    assert np.abs(maps - by_keras[graph_outputs.CLASS_MAPS]).max() < TOLERANCE
    assert np.ptp(maps, axis=(1, 2)).max() > 0
    assert calibrate.apply_softmax(maps.mean(axis=(1, 2))) == pytest.approx(
        by_onnx[graph_outputs.PROBABILITIES], abs=1e-5
    )


def test_the_shipped_score_is_the_length_of_the_whitened_middle_and_the_same_in_onnx(
    shared: Path, unfolded: Any
) -> None:
    images = real_images(shared, 64)
    seen = model.split_parts(unfolded).predict(images, verbose=0)[graph_outputs.MIDDLE]
    chance = np.random.default_rng(0)
    kernel, bias = whitening = chance.normal(size=(112, 112)) / 112, chance.normal(size=112) / 112
    shipped = model.ship(unfolded, whitening=whitening)
    by_keras = shipped.predict(images, verbose=0)
    by_onnx = onnx_run.run(onnx_graph.build(shipped).SerializeToString(), images)
    assert by_keras[graph_outputs.OOD_SCORE] == pytest.approx(np.linalg.norm(seen @ kernel + bias, axis=1), rel=1e-4)
    for name, expected in by_keras.items():
        assert np.abs(by_onnx[name] - expected).max() < TOLERANCE


def test_the_score_weighs_each_direction_by_how_the_training_images_vary_in_it() -> None:
    chance = np.random.default_rng(0)
    features = chance.normal(5, [9, 1, 1], (2000, 3))
    kernel, bias = strangeness.fit_whitening(features)
    scores = np.linalg.norm(features @ kernel + bias, axis=1)
    assert np.mean(scores**2) == pytest.approx(1, rel=0.1)
    along, across = (np.linalg.norm((features.mean(axis=0) + step) @ kernel + bias) for step in ([3, 0, 0], [0, 3, 0]))
    assert across > 5 * along


def test_an_export_folds_the_decision_before_it_fits_the_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odds = np.linspace(-1, 1, 7)
    monkeypatch.setattr(decision, "TAUS", (1.0,))
    monkeypatch.setattr(decision, "measure_log_odds", lambda truth, class_balance: odds * class_balance)
    fitted = []
    monkeypatch.setattr(calibrate, "fit_temperature", lambda logits, truth: fitted.append(logits) or 2.5)
    made, data, folder = samples.prepare(tmp_path), tmp_path / "pixels", tmp_path / "bundle"
    network = model.build_network(32, "none")
    logits = evaluate.predict(onnx_graph.build(model.name_logits(network)).SerializeToString(), 32, made, "val", data)
    plan = {"class_balance": 0.5}
    config = {"plan": plan, "start": "none", "continues": "first", "description": "", "augmentation": "none"}
    record = {"config": config, "further": {"isic2019": 7}}
    record |= {"hardware": "", "packages": {}, "wall_seconds": 1.0, "git_commit": ""}
    card = export.export(network, record, made, data, folder, name="tiny", version="1").card
    shifted = logits[graph_outputs.LOGITS] + odds / 2
    assert card.decision is not None and card.decision.tau == 1
    assert list(card.decision.shift.values()) == pytest.approx(odds / 2)
    assert card.temperature == 2.5
    assert fitted[0] == pytest.approx(shifted)
    outputs = evaluate.predict(folder / bundles.ONNX_MODEL, 32, made, "val", data)
    assert outputs[graph_outputs.PROBABILITIES] == pytest.approx(calibrate.apply_softmax(shifted / 2.5), abs=1e-5)
    assert card.training_data.images == {"train": 28, "val": 7, "test": 7, "isic2019": 7}
    for dataset in (datasets.HAM10000, datasets.ISIC2019):
        assert dataset.title in card.training_data.name
        assert dataset.title in card.licence
        assert dataset.citation in card.citation
        assert dataset.citation in card.training_data.citation
    assert card.training_data.licence == "CC BY-NC 4.0"
    assert card.out_of_distribution.method == strangeness.METHOD
    assert (
        card.start_weights
        == "the last weights of the configuration `first`, which itself started from random initialisation"
    )


def test_a_layer_without_a_translation_is_refused() -> None:
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    odd = keras.Model(pixels, {"out": keras.layers.MaxPooling2D()(keras.layers.Rescaling(1.0)(pixels))})
    with pytest.raises(onnx_graph.Untranslatable, match="MaxPooling2D"):
        onnx_graph.build(odd)


def test_foreign_pictures_come_in_two_kinds() -> None:
    kinds = pictures.draw_foreign(32)
    assert {kind: images.shape[1:] for kind, images in kinds.items()} == dict.fromkeys(kinds, (32, 32, 3))
    assert len(kinds["photographs"]) == 17 * 9


def test_imagenet_weights_mean_the_same_without_the_second_rescaling() -> None:
    factors = [1.4, 1.6, 1.8]
    pixels = keras.Input((4, 4, 3))
    normalised = keras.layers.Normalization(mean=None, axis=-1)
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    published = keras.Model(pixels, keras.layers.Rescaling(factors)(normalised(scaled)))
    normalised.set_weights([np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4]), np.array(0)])
    normalised.finalize_state()
    plain = keras.layers.Normalization(axis=-1)
    ours = keras.Model(pixels, plain(scaled))
    ours.set_weights(model.convert_imagenet_weights(published))
    plain.finalize_state()
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3))
    assert ours.predict(images, verbose=0) == pytest.approx(published.predict(images, verbose=0), abs=1e-5)
