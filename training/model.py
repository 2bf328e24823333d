"""The network: a stock EfficientNetB1, global average pooling and seven logits; and its exported form."""

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


def build_efficientnetb1(size: int, start: str) -> Any:
    """Return EfficientNetB1 without its top, for ``(n, size, size, 3) uint8``; ``start`` is a key of START_WEIGHTS."""
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    stock = keras.applications.EfficientNetB1(include_top=False, weights=None, input_tensor=pixels)
    if start == "shared":
        stock.load_weights(SHARED_WEIGHTS)
    elif start == "imagenet":
        stock.set_weights(
            convert_imagenet_weights(keras.applications.EfficientNetB1(include_top=False, weights="imagenet"))
        )
    # Keras uses the initial statistics until finalize_state is called.
    (normalization,) = [layer for layer in stock.layers if isinstance(layer, keras.layers.Normalization)]
    normalization.finalize_state()
    return keras.Model(pixels, stock.output, name="efficientnetb1")


def convert_imagenet_weights(published: Any) -> list[Any]:
    """Return the weights of Keras's ImageNet network for the same graph without its second rescaling layer.

    Keras divides by the square root of ImageNet's deviations after the normalisation. Here the variance contains that
    division, so the graph is the same for all start weights.
    """
    (rescaling,) = [layer for layer in published.layers[2:] if type(layer).__name__ == "Rescaling"]
    mean, variance, *rest = published.get_weights()
    return [mean, variance / np.square(np.asarray(rescaling.scale, np.float32)), *rest]


def build_efficientnetv2b0(size: int, start: str) -> Any:
    """Return EfficientNetV2-B0 without its top, for comparison and teaching; ``start`` is as for B1."""
    weights = {"shared": SHARED_V2_WEIGHTS, "imagenet": "imagenet", "none": None}[start]
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    stock = keras.applications.EfficientNetV2B0(include_top=False, weights=weights, input_tensor=pixels)
    return keras.Model(pixels, stock.output, name="efficientnetv2b0")


SHIPPED = "efficientnetb1"
BACKBONES = {"efficientnetb1": build_efficientnetb1, "efficientnetv2b0": build_efficientnetv2b0}


def build_network(size: int, start: str, *, dropout: float = 0.0, backbone: str = SHIPPED) -> Any:
    """Return the network up to its logits: ``(n, size, size, 3) uint8`` to ``(n, 7) float32``.

    ``backbone`` is a key of BACKBONES.
    """
    if start not in START_WEIGHTS:
        raise ValueError(f"Start weights {start!r} are unknown; known are {', '.join(START_WEIGHTS)}.")
    stock = BACKBONES[backbone](size, start)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(stock.output)
    dropped = keras.layers.Dropout(dropout, name="pool_dropout")(pooled)
    logits = keras.layers.Dense(len(taxonomy.CODES), dtype="float32", name=graph_outputs.LOGITS)(dropped)
    return keras.Model(stock.input, logits, name="dermq")


def cut_to_features(network: Any) -> Any:
    """Return ``network`` up to its pooling; the only output is ``features (n, 1280) float32``."""
    return keras.Model(network.input, {graph_outputs.FEATURES: network.get_layer("pool").output})


def name_logits(network: Any) -> Any:
    """Return ``network`` with its output named ``logits``, as the ONNX translation needs it."""
    return keras.Model(network.input, {graph_outputs.LOGITS: network.output})


def split_parts(network: Any) -> Any:
    """Return ``network`` with ``logits (n, 7)`` and ``middle (n, 112)``, the channel means after stage five."""
    return keras.Model(
        network.input, {graph_outputs.LOGITS: network.output, graph_outputs.MIDDLE: _find_middle(network)}
    )


def ship(
    network: Any,
    *,
    shift: NDArray[np.floating] | float = 0.0,
    temperature: float = 1.0,
    whitening: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Any:
    """Return the exported form: ``probabilities (n, 7)``, ``ood_score (n,)`` and ``class_maps (n, h, w, 7)``, float32.

    **Changes ``network``**: its last layer adds ``shift`` to the logits and divides by ``temperature`` (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017). The score is the length of ``middle`` after ``whitening``, a
    kernel and a bias (see ``training.strangeness``). A higher score means less like the training data. A class map
    holds the contribution of each place in the image to each diagnosis (Zhou et al., "Learning Deep Features for
    Discriminative Localization", CVPR 2016). The pooling is a mean and the head is linear, so the mean of a class map
    over all places is exactly the logit.

    The form uses only stock layers and operations, so the file loads without this package.
    """
    head = network.get_layer(graph_outputs.LOGITS)
    kernel, bias = head.get_weights()
    head.set_weights([kernel / temperature, (bias + shift) / temperature])
    probabilities = keras.layers.Softmax(name=graph_outputs.PROBABILITIES)(network.output)
    middle = _find_middle(network)
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


def _find_middle(network: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D(name="middle_pool")(network.get_layer(_MIDDLE_LAYER).output)
