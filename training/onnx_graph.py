"""A Keras EfficientNet written as an ONNX graph, by hand.

Why not a general converter: this graph is what every CPU worker runs, so its speed is the product's. Written here it
is channels-first throughout with every batch normalisation folded into its convolution, which leaves ONNX Runtime
nothing but convolutions, sigmoids and products. It also needs no TensorFlow, so that an export works
under any Keras backend.

The weights stay float32; folding is computed in float64 and rounded once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
"""As old as the operators allow, so that older runtimes load the file too."""

Array = NDArray[np.float64]


class Untranslatable(Exception):
    """Raised when a model holds a layer that has no translation here."""


def build(model: Any, *, input_name: str = "pixels") -> onnx.ModelProto:
    """Translate a functional Keras ``model`` with named outputs into ONNX.

    The input is ``(n, s, s, 3) uint8`` with a free batch dimension; the outputs keep the names of the model's output
    dictionary. Raises Untranslatable for a layer that is not part of an EfficientNet or its head.
    """
    graph = _Graph()
    (source,) = model.inputs
    graph.names[id(source)] = graph.read_pixels(input_name)
    for operation in _in_order(model):
        translate = _TRANSLATIONS.get(type(operation).__name__)
        if translate is None:
            raise Untranslatable(f"{operation.name}: {type(operation).__name__} has no ONNX translation.")
        graph.names[id(operation.output)] = translate(graph, operation, graph.source_of(operation))
    outputs = [_declare_output(graph, name, tensor) for name, tensor in model.output.items()]
    size = int(source.shape[1])
    pixels = helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["n", size, size, 3])
    return _finish(graph, pixels, outputs)


@dataclass
class _Convolution:
    """A convolution not yet written: its batch normalisation, if one follows, is folded in first."""

    source: str
    kernel: Array
    """(out, in / groups, height, width)."""
    bias: Array
    strides: tuple[int, int]
    pads: list[int]
    groups: int


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    """Names of the ONNX values, by the identity of the Keras tensor."""
    pads: dict[str, list[int]] = field(default_factory=dict)
    """Zero padding asked for but not yet applied: the next convolution takes it."""
    convolutions: dict[str, _Convolution] = field(default_factory=dict)
    pooled: set[str] = field(default_factory=set)
    """Values that are (n, channels, 1, 1) here and (n, channels) in Keras."""

    def add(self, kind: str, sources: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, [self.settle(s) for s in sources], [name], name, **attributes))
        return name

    def constant(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def settle(self, name: str) -> str:
        """Write the convolution ``name`` if it still waits."""
        waiting = self.convolutions.pop(name, None)
        if waiting is not None:
            kernel = self.constant(f"{name}/kernel", waiting.kernel)
            bias = self.constant(f"{name}/bias", waiting.bias)
            shape = {"strides": waiting.strides, "pads": waiting.pads, "group": waiting.groups}
            self.nodes.append(helper.make_node("Conv", [waiting.source, kernel, bias], [name], name, **shape))
        return name

    def source_of(self, operation: Any) -> list[str]:
        tensors = operation.input if isinstance(operation.input, list) else [operation.input]
        return [self.names[id(tensor)] for tensor in tensors]

    def read_pixels(self, name: str) -> str:
        """Bytes in rows of pixels, to floats in planes."""
        return self.add("Cast", [self.add("Transpose", [name], "planes", perm=[0, 3, 1, 2])], "floats", to=1)


def _in_order(model: Any) -> list[Any]:
    """The model's operations, each after what it reads; the input layer left out."""
    return [operation for operation in model.operations if type(operation).__name__ != "InputLayer"]


def _pass(graph: _Graph, layer: Any, sources: list[str]) -> str:
    """A layer that does nothing when a model predicts, or nothing to a channels-first value."""
    return sources[0]


def _rescaling(graph: _Graph, layer: Any, sources: list[str]) -> str:
    scale = graph.constant(f"{layer.name}/scale", np.reshape(layer.scale, (1, -1, 1, 1)))
    scaled = graph.add("Mul", [sources[0], scale], f"{layer.name}/scaled")
    offset = graph.constant(f"{layer.name}/offset", np.reshape(layer.offset, (1, -1, 1, 1)))
    return graph.add("Add", [scaled, offset], layer.name)


def _normalization(graph: _Graph, layer: Any, sources: list[str]) -> str:
    statistics = layer.get_weights()[:2] or (layer.input_mean, layer.input_variance)  # learnt, or given
    mean, variance = (np.asarray(values, np.float64) for values in statistics)
    scale = 1.0 / np.sqrt(variance)
    factor = graph.constant(f"{layer.name}/factor", scale.reshape(1, -1, 1, 1))
    offset = graph.constant(f"{layer.name}/offset", (-mean * scale).reshape(1, -1, 1, 1))
    return graph.add("Add", [graph.add("Mul", [sources[0], factor], f"{layer.name}/scaled"), offset], layer.name)


def _zero_padding(graph: _Graph, layer: Any, sources: list[str]) -> str:
    (top, bottom), (left, right) = layer.padding
    graph.pads[layer.name] = [top, left, bottom, right]
    return graph.add("Identity", sources, layer.name)


def _convolution(graph: _Graph, layer: Any, sources: list[str]) -> str:
    return _wait(graph, layer, sources[0], np.transpose(_weights(layer)[0], (3, 2, 0, 1)), groups=1)


def _depthwise(graph: _Graph, layer: Any, sources: list[str]) -> str:
    kernel = np.transpose(_weights(layer)[0], (2, 3, 0, 1))
    return _wait(graph, layer, sources[0], kernel, groups=kernel.shape[0])


def _wait(graph: _Graph, layer: Any, source: str, kernel: Array, *, groups: int) -> str:
    weights = _weights(layer)
    bias = weights[1] if layer.use_bias else np.zeros(kernel.shape[0])
    pads = graph.pads.get(source) or _same_pads(layer)
    strides = tuple(layer.strides)
    graph.convolutions[layer.name] = _Convolution(graph.settle(source), kernel, bias, strides, pads, groups)
    if layer.activation.__name__ != "linear":
        return _activate(graph, layer.name, f"{layer.name}/active", layer.activation.__name__)
    return str(layer.name)


def _same_pads(layer: Any) -> list[int]:
    """TensorFlow's "same": the odd pixel of padding goes to the end."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    sides = []
    for length, kernel, stride in zip(layer.input.shape[1:3], layer.kernel_size, layer.strides, strict=True):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = sides
    return [top, left, bottom, right]


def _batch_normalization(graph: _Graph, layer: Any, sources: list[str]) -> str:
    waiting = graph.convolutions.pop(sources[0], None)
    if waiting is None:
        raise Untranslatable(f"{layer.name}: no convolution to fold this batch normalisation into.")
    gamma, beta, mean, variance = _weights(layer)
    factor = gamma / np.sqrt(variance + layer.epsilon)
    waiting.kernel = waiting.kernel * factor[:, None, None, None]
    waiting.bias = (waiting.bias - mean) * factor + beta
    graph.convolutions[layer.name] = waiting
    return str(layer.name)


def _activation(graph: _Graph, layer: Any, sources: list[str]) -> str:
    return _activate(graph, sources[0], layer.name, layer.activation.__name__)


def _activate(graph: _Graph, source: str, name: str, kind: str) -> str:
    if kind == "sigmoid":
        return graph.add("Sigmoid", [source], name)
    if kind in ("silu", "swish"):
        return graph.add("Mul", [source, graph.add("Sigmoid", [source], f"{name}/sigmoid")], name)
    raise Untranslatable(f"{name}: no translation for the activation {kind}.")


def _pool(graph: _Graph, layer: Any, sources: list[str]) -> str:
    graph.pooled.add(layer.name)
    return graph.add("GlobalAveragePool", sources, layer.name)


def _multiply(graph: _Graph, layer: Any, sources: list[str]) -> str:
    return graph.add("Mul", sources, layer.name)


def _add(graph: _Graph, layer: Any, sources: list[str]) -> str:
    return graph.add("Add", sources, layer.name)


def _dense(graph: _Graph, layer: Any, sources: list[str]) -> str:
    kernel, bias = _weights(layer)
    flat = graph.add("Flatten", sources, f"{layer.name}/flat", axis=1)
    names = [graph.constant(f"{layer.name}/kernel", kernel), graph.constant(f"{layer.name}/bias", bias)]
    return graph.add("Gemm", [flat, *names], layer.name)


def _softmax(graph: _Graph, layer: Any, sources: list[str]) -> str:
    return graph.add("Softmax", sources, layer.name, axis=-1)


def _norm(graph: _Graph, operation: Any, sources: list[str]) -> str:
    """The Euclidean length along the last axis."""
    return graph.add("ReduceL2", sources, operation.name, axes=[-1], keepdims=0)


_TRANSLATIONS: dict[str, Callable[[_Graph, Any, list[str]], str]] = {
    "Activation": _activation,
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _pass,
    "GlobalAveragePooling2D": _pool,
    "Multiply": _multiply,
    "Norm": _norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Reshape": _pass,  # a squeezed value stays (n, channels, 1, 1) here
    "Softmax": _softmax,
    "ZeroPadding2D": _zero_padding,
}


def _weights(layer: Any) -> list[Array]:
    return [np.asarray(weight, np.float64) for weight in layer.get_weights()]


def _declare_output(graph: _Graph, name: str, tensor: Any) -> onnx.ValueInfoProto:
    source = graph.names[id(tensor)]
    if len(tensor.shape) == 4:
        graph.add("Transpose", [source], name, perm=[0, 2, 3, 1])
    elif source in graph.pooled:
        graph.add("Flatten", [source], name, axis=1)
    elif source != name:
        graph.add("Identity", [source], name)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *tensor.shape[1:]])


def _finish(graph: _Graph, pixels: onnx.ValueInfoProto, outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    body = helper.make_graph(graph.nodes, "dermq", [pixels], outputs, graph.constants)
    model = helper.make_model(body, producer_name="dermq", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model
