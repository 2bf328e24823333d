"""The network: a stock EfficientNetB1, global average pooling, seven logits; and its shipped form."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import graph_outputs

ARCHITECTURE = "EfficientNetB1 (stock Keras graph, no top), global average pooling, dense 7, softmax"
_MIDDLE_LAYER = "block5d_add"
START_WEIGHTS = {
    "shared": "efficientnetb1_notop.weights.h5: EfficientNetB1 derived from EfficientNet-Lite1's ImageNet weights "
    "(Apache-2.0), batch-norm statistics re-estimated on 640 HAM10000 training images; not the published ImageNet B1",
    "imagenet": "keras.applications ImageNet weights of EfficientNetB1",
    "none": "random initialisation",
}
SHARED_WEIGHTS = Path("../shared/weights/efficientnetb1_notop.weights.h5")
SHARED_V2_WEIGHTS = Path("../shared/weights/efficientnetv2b0_notop.weights.h5")


def efficientnetb1(size: int, start: str) -> Any:
    """EfficientNetB1 without its top, from ``(n, size, size, 3) uint8``; ``start`` is a key of START_WEIGHTS."""
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    stock = keras.applications.EfficientNetB1(include_top=False, weights=None, input_tensor=pixels)
    if start == "shared":
        stock.load_weights(SHARED_WEIGHTS)
    elif start == "imagenet":
        stock.set_weights(imagenet_weights(keras.applications.EfficientNetB1(include_top=False, weights="imagenet")))
    # Keras keeps the statistics it was built with until told otherwise.
    (normalization,) = [layer for layer in stock.layers if isinstance(layer, keras.layers.Normalization)]
    normalization.finalize_state()
    return keras.Model(pixels, stock.output, name="efficientnetb1")


def imagenet_weights(published: Any) -> list[Any]:
    """The weights of Keras's ImageNet network, for the same graph without its second rescaling.

    Keras divides by the square root of ImageNet's deviations after normalising; here that division goes into the
    variance, so that networks of every start have one graph.
    """
    (rescaling,) = [layer for layer in published.layers[2:] if type(layer).__name__ == "Rescaling"]
    mean, variance, *rest = published.get_weights()
    return [mean, variance / np.square(np.asarray(rescaling.scale, np.float32)), *rest]


def efficientnetv2b0(size: int, start: str) -> Any:
    """EfficientNetV2-B0 without its top, for comparison and as a teacher; ``start`` as for ``efficientnetb1``."""
    weights = {"shared": SHARED_V2_WEIGHTS, "imagenet": "imagenet", "none": None}[start]
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    stock = keras.applications.EfficientNetV2B0(include_top=False, weights=weights, input_tensor=pixels)
    return keras.Model(pixels, stock.output, name="efficientnetv2b0")


SHIPPED = "efficientnetb1"
BACKBONES = {"efficientnetb1": efficientnetb1, "efficientnetv2b0": efficientnetv2b0}


def network(size: int, start: str, *, dropout: float = 0.0, backbone: str = SHIPPED) -> Any:
    """The whole network up to its logits: ``(n, size, size, 3) uint8`` to ``(n, 7) float32``.

    ``backbone`` is a key of BACKBONES.
    """
    if start not in START_WEIGHTS:
        raise ValueError(f"Start weights {start!r} are unknown; known are {', '.join(START_WEIGHTS)}.")
    stock = BACKBONES[backbone](size, start)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(stock.output)
    dropped = keras.layers.Dropout(dropout, name="pool_dropout")(pooled)
    logits = keras.layers.Dense(len(taxonomy.CODES), dtype="float32", name=graph_outputs.LOGITS)(dropped)
    return keras.Model(stock.input, logits, name="dermq")


def features(network: Any) -> Any:
    """``network`` cut after pooling, its one output named ``features``: ``(n, 1280) float32``."""
    return keras.Model(network.input, {graph_outputs.FEATURES: network.get_layer("pool").output})


def logits(network: Any) -> Any:
    """``network`` with its output named, as the ONNX translation wants it."""
    return keras.Model(network.input, {graph_outputs.LOGITS: network.output})


def parts(network: Any) -> Any:
    """What an export is chosen by: ``logits (n, 7)`` and ``middle (n, 112)``, the channel means after five stages."""
    return keras.Model(network.input, {graph_outputs.LOGITS: network.output, graph_outputs.MIDDLE: _middle(network)})


def ship(
    network: Any,
    *,
    shift: NDArray[np.floating] | float = 0.0,
    temperature: float = 1.0,
    whitening: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Any:
    """The form that ships, all float32: ``probabilities (n, 7)``, ``ood_score (n,)`` and ``class_maps (n, h, w, 7)``.

    The ``shift`` is added to the logits, and the temperature (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017) divided out of them, in the last layer's weights: **changes ``network``**. The score is the length of
    ``middle`` after ``whitening``, a kernel and a bias (see ``training.strangeness``): higher means less like the
    training data. A class map tells what each place of the image says for each diagnosis (Zhou et al., "Learning Deep
    Features for Discriminative Localization", CVPR 2016): as the pooling is a mean and the head linear, the mean of the
    maps over all places is exactly what the softmax is taken of.

    Stock layers and operations only, so that the file loads without this package.
    """
    head = network.get_layer(graph_outputs.LOGITS)
    kernel, bias = head.get_weights()
    head.set_weights([kernel / temperature, (bias + shift) / temperature])
    probabilities = keras.layers.Softmax(name=graph_outputs.PROBABILITIES)(network.output)
    middle = _middle(network)
    distance = keras.layers.Dense(middle.shape[-1], kernel_initializer="identity", name="strangeness")
    score = keras.ops.norm(distance(middle), axis=-1)
    if whitening is not None:
        distance.set_weights(whitening)
    by_place = keras.layers.Conv2D(kernel.shape[-1], 1, name="logits_by_place")
    maps = by_place(network.get_layer("pool").input)
    kernel, bias = head.get_weights()
    by_place.set_weights([kernel[None, None], bias])
    outputs = {
        graph_outputs.PROBABILITIES: probabilities,
        graph_outputs.OOD_SCORE: score,
        graph_outputs.CLASS_MAPS: maps,
    }
    return keras.Model(network.input, outputs, name="dermq")


def _middle(network: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D(name="middle_pool")(network.get_layer(_MIDDLE_LAYER).output)
