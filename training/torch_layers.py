"""Layers of the stock network that call PyTorch's own operations, for training with ``KERAS_BACKEND=torch``.

Keras 3.15 composes batch normalisation of six passes over the activations where PyTorch has one operation, and copies
every convolution's input twice on its way from channels last to channels first, though PyTorch takes channels last as
it is. These layers have the same names, weights and results; whole training steps take two thirds of the time on a CPU.
"""

from typing import Any

import keras
import torch
from keras import layers, ops


class Conv2D(layers.Conv2D):
    """A convolution without dilation."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return _convolve(inputs, ops.transpose(kernel, (3, 2, 0, 1)), self.strides, self.padding, groups=1)


class DepthwiseConv2D(layers.DepthwiseConv2D):
    """A depthwise convolution without bias or activation, as the stock network has them."""

    def call(self, inputs: Any) -> Any:
        kernel = ops.transpose(self.kernel, (2, 3, 0, 1))
        return _convolve(inputs, kernel, self.strides, self.padding, groups=inputs.shape[-1])


class BatchNormalization(layers.BatchNormalization):
    """Batch normalisation over all but the last axis; the moving variance is of the biased kind, as Keras has it."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        channels_first = inputs.float().permute(0, 3, 1, 2)
        outputs, mean, inverse_deviation = torch.native_batch_norm(
            channels_first, self.gamma.value, self.beta.value, None, None, True, 0.0, self.epsilon
        )
        with torch.no_grad():
            variance = inverse_deviation.pow(-2) - self.epsilon
            self.moving_mean.value.lerp_(mean, 1 - self.momentum)
            self.moving_variance.value.lerp_(variance, 1 - self.momentum)
        return outputs.permute(0, 2, 3, 1).to(inputs.dtype)


_FASTER: dict[str, Any] = {cls.__name__: cls for cls in (Conv2D, DepthwiseConv2D, BatchNormalization)}


def accelerate(network: Any) -> Any:
    """A copy of ``network``, stock layers replaced by those above."""
    copy = keras.models.clone_model(network, clone_function=_clone)
    copy.set_weights(network.get_weights())
    for layer in copy.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return copy


def _clone(layer: Any) -> Any:
    return _FASTER.get(type(layer).__name__, type(layer)).from_config(layer.get_config())


def _convolve(inputs: Any, kernel: Any, strides: tuple[int, int], padding: str, *, groups: int) -> Any:
    planes = inputs.permute(0, 3, 1, 2)
    if padding == "same" and set(strides) != {1}:
        planes, padding = torch.nn.functional.pad(planes, _same(planes, kernel, strides)), "valid"
    outputs = torch.nn.functional.conv2d(planes, kernel, stride=strides, padding=padding, groups=groups)
    return outputs.permute(0, 2, 3, 1)


def _same(planes: Any, kernel: Any, strides: tuple[int, int]) -> tuple[int, int, int, int]:
    """Keras's "same" for strides, which PyTorch lacks: left, right, top, bottom; the odd pixel goes to the end."""
    rows, columns = (
        max((-(-length // stride) - 1) * stride + width - length, 0)
        for length, width, stride in zip(planes.shape[2:], kernel.shape[2:], strides, strict=True)
    )
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
