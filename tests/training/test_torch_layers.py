"""The layers that call PyTorch directly compute what Keras's do; needs `KERAS_BACKEND=torch`."""

import keras
import numpy as np
import pytest

from training import finetune, model
from training.config import Finetune, Phase

if keras.backend.backend() != "torch":
    pytest.skip("needs PyTorch as Keras's backend", allow_module_level=True)

from training import torch_layers

SIZE = 64


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(params=model.BACKBONES)
def networks(request):
    keras.utils.set_random_seed(1)
    stock = model.network(SIZE, "none", backbone=request.param)
    for layer in stock.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return stock, torch_layers.accelerate(stock)


def test_every_layer_that_has_a_faster_one_is_replaced(networks):
    stock, faster = networks
    replaced = [layer for layer in faster.layers if type(layer).__module__ == torch_layers.__name__]
    assert {type(layer).__name__ for layer in replaced} == {"Conv2D", "DepthwiseConv2D", "BatchNormalization"}
    assert [layer.name for layer in stock.layers] == [layer.name for layer in faster.layers]
    assert [weight.path for weight in stock.weights] == [weight.path for weight in faster.weights]


def test_predictions_are_the_same(networks, images):
    expected, found = (network.predict(images, verbose=0) for network in networks)
    assert np.abs(expected - found).max() < 1e-5


def test_a_training_step_moves_weights_and_statistics_alike(networks, images):
    truth = np.eye(7)[np.arange(8) % 7]
    before = [np.array(weight) for weight in networks[0].get_weights()]
    losses = []
    for network in networks:
        compiled = finetune.compiled(network, Finetune(phases=(Phase(SIZE, 1),)))
        compiled.optimizer = keras.optimizers.SGD(0.01)
        losses.append(float(compiled.train_on_batch(images, truth)[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    steps = [
        (expected - old, found - old)
        for old, expected, found in zip(before, *(network.get_weights() for network in networks), strict=True)
        if np.issubdtype(old.dtype, np.floating)
    ]
    assert sum(np.abs(expected).max() > 0 for expected, _ in steps) > 300
    for expected, found in steps:
        assert np.abs(expected - found).max() <= 1e-3 * np.abs(expected).max() + 1e-6
