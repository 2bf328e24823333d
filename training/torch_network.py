"""Translates a Keras network into PyTorch's own modules.

Keras on PyTorch copies the input of every convolution from channels last to channels first and back, and computes a
batch normalisation in six passes. This module translates every layer once, as ``onnx_graph`` does, into a module for
tensors in PyTorch's channels-last memory format, with the depthwise convolutions of ``depthwise``. Logits, gradients
and batch norm statistics equal those of the Keras network (tests/training/test_torch_network.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from training import depthwise
from training.learner import Weights

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda values: values,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "swish": functional.silu,
}


class Untranslatable(Exception):
    """Raised when a model holds a layer that this module cannot translate."""


class Network(nn.Module):
    """A functional Keras model from ``(n, s, s, 3) uint8`` to one float32 output; ``chance`` is dropout's generator."""

    def __init__(self, model: Any, chance: torch.Generator) -> None:
        super().__init__()
        operations = [one for one in model.operations if type(one).__name__ != "InputLayer"]
        names = {id(one.output): one.name for one in operations} | {id(model.inputs[0]): "pixels"}
        self._plan = [(one.name, [names[id(tensor)] for tensor in _listed(one.input)]) for one in operations]
        self._last = {source: name for name, sources in self._plan for source in sources}
        self._output = names[id(model.outputs[0])]
        # A list and not a dictionary, because the name of a module must not contain a dot.
        self.layers = nn.ModuleList([_module(one, chance) for one in operations])
        places = {name: place for place, (name, _) in enumerate(self._plan)}
        self._weighted = [places[layer.name] for layer in model.layers if layer.weights]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = {"pixels": pixels.permute(0, 3, 1, 2).float()}  # a view: memory stays channels last
        for layer, (name, sources) in zip(self.layers, self._plan, strict=True):
            values[name] = layer(*(values[source] for source in sources))
            for source in sources:
                if self._last[source] == name:
                    values.pop(source, None)  # no later layer reads it, so its memory can be freed
        return values[self._output]

    def weights(self) -> Weights:
        """Return copies of all weights, in the order and the shapes of Keras's ``get_weights``."""
        return [slot.read() for slot in self._slots()]

    def load(self, weights: Weights) -> None:
        """Replace all weights by ``weights``, in the same order."""
        for slot, weight in zip(self._slots(), weights, strict=True):
            slot.write(weight)

    def _slots(self) -> "list[_Slot]":
        return [slot for place in self._weighted for slot in self.layers[place].slots()]


@dataclass(frozen=True)
class _Slot:
    """The tensor of a weight, and the permutation of its axes from PyTorch to Keras."""

    tensor: torch.Tensor
    axes: tuple[int, ...] = ()

    def read(self) -> NDArray[Any]:
        value = self.tensor.detach().cpu()
        return np.array(value.permute(self.axes) if self.axes else value, order="C")

    def write(self, weight: NDArray[Any]) -> None:
        with torch.no_grad():
            target = self.tensor.permute(self.axes) if self.axes else self.tensor
            target.copy_(torch.from_numpy(np.asarray(weight)).reshape(target.shape))


class _Function(nn.Module):
    """A layer without weights."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self._function(*values)


class _Convolution(nn.Module):
    """Conv2D and DepthwiseConv2D."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._depthwise = type(layer).__name__ == "DepthwiseConv2D"
        self._axes = (2, 3, 0, 1) if self._depthwise else (2, 3, 1, 0)
        height, width, inputs, outputs = layer.kernel.shape
        shape = (inputs, 1, height, width) if self._depthwise else (outputs, inputs, height, width)
        self.kernel = nn.Parameter(torch.empty(shape).to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(shape[0])) if layer.use_bias else None
        self._strides = tuple(layer.strides)
        self._pads = _pads(layer)
        self._activation = ACTIVATIONS[layer.activation.__name__]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        left, right, top, bottom = self._pads
        if left != right or top != bottom:
            values, left, top = functional.pad(values, self._pads), 0, 0
        if self._depthwise:
            convolved = depthwise.convolve(values, self.kernel, self._strides, (top, left))
            convolved = convolved if self.bias is None else convolved + self.bias[:, None, None]
        else:
            convolved = functional.conv2d(values, self.kernel, self.bias, self._strides, (top, left))
        return self._activation(convolved)

    def slots(self) -> list[_Slot]:
        return [_Slot(self.kernel, self._axes)] + ([_Slot(self.bias)] if self.bias is not None else [])


class _BatchNormalization(nn.Module):
    """Batch normalisation with the biased moving variance, as in Keras."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        channels = layer.gamma.shape[0]
        self.gamma, self.beta = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("mean", torch.empty(channels))
        self.register_buffer("variance", torch.empty(channels))
        self._share, self._epsilon = 1 - layer.momentum, layer.epsilon

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return functional.batch_norm(
                values, self.mean, self.variance, self.gamma, self.beta, training=False, eps=self._epsilon
            )
        outputs, mean, inverse_deviation = torch.native_batch_norm(
            values, self.gamma, self.beta, None, None, True, 0.0, self._epsilon
        )
        with torch.no_grad():
            self.mean.lerp_(mean, self._share)
            self.variance.lerp_(inverse_deviation.pow(-2) - self._epsilon, self._share)
        return outputs

    def slots(self) -> list[_Slot]:
        return [_Slot(tensor) for tensor in (self.gamma, self.beta, self.mean, self.variance)]


class _Normalization(nn.Module):
    """Normalisation of the channels by a learned or a given mean and variance."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._learnt = bool(layer.weights)
        mean, variance = (layer.mean, layer.variance) if self._learnt else (layer.input_mean, layer.input_variance)
        for name, value in (("mean", mean), ("variance", variance)):
            self.register_buffer(name, torch.tensor(np.array(value, np.float32).reshape(-1)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.mean[:, None, None]) / self.variance[:, None, None].sqrt()

    def slots(self) -> list[_Slot]:
        return [_Slot(self.mean), _Slot(self.variance), _Slot(self.count)]


class _Dense(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        inputs, outputs = layer.kernel.shape
        self.kernel, self.bias = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.linear(values, self.kernel, self.bias)

    def slots(self) -> list[_Slot]:
        return [_Slot(self.kernel, (1, 0)), _Slot(self.bias)]


class _Dropout(nn.Module):
    """Dropout of values, or, with a noise shape of ones, of whole images (stochastic depth)."""

    def __init__(self, layer: Any, chance: torch.Generator) -> None:
        super().__init__()
        self._rate, self._chance = layer.rate, chance
        self._whole = layer.noise_shape is not None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training or self._rate == 0:
            return values
        shape = (len(values), *(1,) * (values.ndim - 1)) if self._whole else values.shape
        kept = torch.empty(shape, device=values.device).bernoulli_(1 - self._rate, generator=self._chance)
        return values * (kept / (1 - self._rate))


def _rescaling(layer: Any) -> nn.Module:
    scale, offset = (torch.tensor(np.reshape(value, (-1, 1, 1)), dtype=torch.float32)
                     for value in (layer.scale, layer.offset))  # fmt: skip
    return _Function(lambda values: values * scale.to(values.device) + offset.to(values.device))


def _zero_padding(layer: Any) -> nn.Module:
    (top, bottom), (left, right) = layer.padding
    return _Function(lambda values: functional.pad(values, (left, right, top, bottom)))


_MODULES: dict[str, Callable[[Any], nn.Module]] = {
    "Activation": lambda layer: _Function(ACTIVATIONS[layer.activation.__name__]),
    "Add": lambda layer: _Function(torch.add),
    "BatchNormalization": _BatchNormalization,
    "Conv2D": _Convolution,
    "Dense": _Dense,
    "DepthwiseConv2D": _Convolution,
    "GlobalAveragePooling2D": lambda layer: _Function(lambda values: values.mean((2, 3))),
    "Multiply": lambda layer: _Function(torch.mul),
    "Normalization": _Normalization,
    "Rescaling": _rescaling,
    "Reshape": lambda layer: _Function(lambda values: values[:, :, None, None]),  # (1, 1, channels) in Keras
    "ZeroPadding2D": _zero_padding,
}


def _module(operation: Any, chance: torch.Generator) -> nn.Module:
    kind = type(operation).__name__
    if kind == "Dropout":
        return _Dropout(operation, chance)
    if kind not in _MODULES:
        raise Untranslatable(f"{operation.name}: {kind} has no translation to PyTorch.")
    return _MODULES[kind](operation)


def _pads(layer: Any) -> tuple[int, int, int, int]:
    """Return Keras's "same" or "valid" padding as left, right, top, bottom; an odd pixel goes to the end."""
    if layer.padding == "valid":
        return (0, 0, 0, 0)
    (top, bottom), (left, right) = (
        (total // 2, total - total // 2)
        for total in (
            max((-(-length // stride) - 1) * stride + width - length, 0)
            for length, width, stride in zip(layer.input.shape[1:3], layer.kernel_size, layer.strides, strict=True)
        )
    )
    return left, right, top, bottom


def _listed(tensors: Any) -> list[Any]:
    return tensors if isinstance(tensors, list) else [tensors]
