"""PyTorch's own modules compute the same as the Keras network; needs `KERAS_BACKEND=torch`."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from training import learner, model
from training.config import Finetune, Phase

if keras.backend.backend() != "torch":
    pytest.skip("needs PyTorch as Keras's backend", allow_module_level=True)

import torch

from training import torch_learner, torch_network

SIZE = 64
PLAN = Finetune(phases=(Phase(SIZE, 1),), weight_decay=0.0)


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(params=model.BACKBONES)
def stock(request: pytest.FixtureRequest) -> Any:
    """A network without dropout, with statistics and scales far from the initial ones."""
    keras.utils.set_random_seed(1)
    network = model.build_network(SIZE, "none", backbone=request.param)
    chance = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([weight + chance.uniform(0, 0.2, weight.shape) for weight in layer.get_weights()])
    return network


def test_weights_come_back_as_they_went_in(stock: Any) -> None:
    taught = learner.make_learner(stock, PLAN, 1)
    assert isinstance(taught, torch_learner.TorchLearner)
    pairs = list(zip(stock.get_weights(), taught.weights(), strict=True))
    assert all(np.array_equal(given, found) for given, found in pairs)
    taught.load([given + 1 for given, _ in pairs])
    assert all(np.array_equal(given + 1, found) for (given, _), found in zip(pairs, taught.weights(), strict=True))


def test_logits_are_the_same(stock: Any, images: Any) -> None:
    native = torch_network.Network(stock, torch.Generator())
    native.load(stock.get_weights())
    native.eval()
    with torch.no_grad():
        found = native(torch.from_numpy(images)).numpy()
    expected = stock.predict(images, verbose=0)
    assert np.abs(expected - found).max() < 1e-5 * max(1, np.abs(expected).max())


def test_a_training_step_moves_weights_and_statistics_alike(stock: Any, images: Any) -> None:
    truth = np.eye(7)[np.arange(8) % 7]
    before = [np.array(weight) for weight in stock.get_weights()]
    native, by_keras = learner.make_learner(stock, PLAN, 1), learner.KerasLearner(stock, PLAN)
    assert isinstance(native, torch_learner.TorchLearner)
    native._optimizer = torch.optim.SGD(native._network.parameters())
    stock.optimizer = keras.optimizers.SGD()
    losses = [one.step(images, truth, 0.01) for one in (by_keras, native)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    moved = 0
    for old, expected, found in zip(before, by_keras.weights(), native.weights(), strict=True):
        if np.issubdtype(old.dtype, np.floating):
            moved += bool(np.abs(expected - old).max() > 0)
            assert np.abs(expected - found).max() <= 1e-3 * np.abs(expected - old).max() + 1e-6
    assert moved > 300


def test_a_step_in_mixed_precision_has_nearly_the_same_loss(images: Any) -> None:
    keras.utils.set_random_seed(1)
    network = model.build_network(SIZE, "none")
    truth = np.eye(7)[np.arange(8) % 7]
    plain, mixed = (torch_learner.TorchLearner(network, PLAN, 1, mixed=mixed) for mixed in (False, True))
    losses = [one.step(images, truth, 1e-3)[0] for one in (plain, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert [weight.dtype for weight in plain.weights()] == [weight.dtype for weight in mixed.weights()]


def test_the_optimizer_is_that_of_keras() -> None:
    features = keras.Input((7,))
    network = keras.Model(features, keras.layers.Dense(7)(features))
    plan = dataclasses.replace(PLAN, weight_decay=0.1)
    by_keras = learner.KerasLearner(network, plan)
    native = torch_learner.TorchLearner(network, plan, 1)
    native._network.forward = native._network.layers[0].forward
    chance = np.random.default_rng(0)
    for _ in range(5):
        seen: Any = chance.normal(size=(8, 7)).astype(np.float32)
        truth = np.eye(7)[chance.integers(0, 7, 8)]
        losses = [one.step(seen, truth, 0.01) for one in (by_keras, native)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for expected, found in zip(by_keras.weights(), native.weights(), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)  # they add epsilon in different places


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    layer = keras.layers.Dropout(0.25, noise_shape=(None, 1, 1, 1))
    dropout = torch_network._Dropout(layer, torch.Generator().manual_seed(1))
    values = dropout(torch.ones(4000, 2, 3, 3))
    assert {round(float(value), 4) for value in values.unique()} == {0.0, 1.3333}
    assert torch.equal(values.amin((1, 2, 3)), values.amax((1, 2, 3)))
    assert float(values.mean()) == pytest.approx(1, abs=0.03)


def test_a_layer_that_is_not_known_is_refused() -> None:
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, keras.layers.MaxPooling2D()(pixels))
    with pytest.raises(torch_network.Untranslatable, match="MaxPooling2D"):
        torch_network.Network(network, torch.Generator())
