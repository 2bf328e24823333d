"""A depthwise convolution with faster gradients on processors.

oneDNN computes two gradients of a depthwise convolution slowly, above all in bfloat16: that of the kernel when it is
5 x 5, and that of the input when the stride is two. Both are computed here by operations that oneDNN does fast
(training/README.md has the times). The results are the same up to the order of the sums.
"""

from typing import Any

import torch
from torch.nn import functional

_PART = 3
"""oneDNN has fast gradients of kernels of 3 x 3, so a 5 x 5 kernel is covered by four overlapping parts."""

Pair = tuple[int, int]


def convolve(images: torch.Tensor, kernel: torch.Tensor, strides: Pair, pads: Pair) -> torch.Tensor:
    """Return the depthwise convolution of ``images (n, c, h, w)`` with ``kernel (c, 1, k, k)``, without a bias."""
    if images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        images, kernel = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (images, kernel))
    convolved: torch.Tensor = _Depthwise.apply(images, kernel, strides, pads)
    return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, kernel: torch.Tensor, strides: Pair, pads: Pair) -> torch.Tensor:
        ctx.save_for_backward(images, kernel)
        ctx.strides, ctx.pads = strides, pads
        return functional.conv2d(images, kernel, None, strides, pads, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, kernel = ctx.saved_tensors
        by_image, by_kernel = ctx.needs_input_grad[:2]
        slow_image, slow_kernel = _slow(images, kernel, ctx.strides)
        stock = _stock(slope, images, kernel, ctx, by_image and not slow_image, by_kernel and not slow_kernel)
        return (
            _image_gradient(slope, images, kernel, ctx.strides, ctx.pads) if by_image and slow_image else stock[0],
            _kernel_gradient(slope, images, kernel, ctx.strides, ctx.pads) if by_kernel and slow_kernel else stock[1],
            None,
            None,
        )


def _slow(images: torch.Tensor, kernel: torch.Tensor, strides: Pair) -> tuple[bool, bool]:
    """Return whether oneDNN's gradients of the images and of the kernel are slower than those of this module."""
    if images.device.type != "cpu":
        return False, False
    reduced, strided = images.dtype == torch.bfloat16, strides != (1, 1)
    return reduced and strided, kernel.shape[2:] == (5, 5) and (reduced or not strided)


def _stock(
    slope: torch.Tensor, images: torch.Tensor, kernel: torch.Tensor, ctx: Any, by_image: bool, by_kernel: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if not (by_image or by_kernel):
        return None, None
    mask = [by_image, by_kernel, False]
    found: tuple[torch.Tensor | None, torch.Tensor | None, None] = torch.ops.aten.convolution_backward(
        slope, images, kernel, None, ctx.strides, ctx.pads, (1, 1), False, (0, 0), len(kernel), mask
    )
    return found[:2]


def _image_gradient(
    slope: torch.Tensor, images: torch.Tensor, kernel: torch.Tensor, strides: Pair, pads: Pair
) -> torch.Tensor:
    """Return the gradient of the images: a plain convolution of ``slope``, with zeros between, by the turned kernel."""
    sides = [
        side + 2 * pad - length + 1 for side, pad, length in zip(images.shape[2:], pads, kernel.shape[2:], strict=True)
    ]
    spread = torch.zeros((*images.shape[:2], *sides), dtype=slope.dtype).contiguous(memory_format=torch.channels_last)
    spread[:, :, :: strides[0], :: strides[1]][:, :, : slope.shape[2], : slope.shape[3]] = slope
    margins = [length - 1 - pad for pad, length in zip(pads, kernel.shape[2:], strict=True)]
    return functional.conv2d(spread, kernel.flip(2, 3), None, 1, margins, groups=len(kernel))


def _kernel_gradient(
    slope: torch.Tensor, images: torch.Tensor, kernel: torch.Tensor, strides: Pair, pads: Pair
) -> torch.Tensor:
    """Return the gradient of a 5 x 5 kernel, by parts; the taps in the middle belong to several parts."""
    padded = functional.pad(images, (pads[1], pads[1], pads[0], pads[0]))
    heights, widths = (stride * (side - 1) + _PART for stride, side in zip(strides, slope.shape[2:], strict=True))
    found, part = torch.empty_like(kernel), kernel[:, :, :_PART, :_PART]
    for down in (0, 2):
        for right in (0, 2):
            seen = padded[:, :, down : down + heights, right : right + widths]
            seen = seen.contiguous(memory_format=torch.channels_last)
            found[:, :, down : down + _PART, right : right + _PART] = torch.ops.aten.convolution_backward(
                slope, seen, part, None, strides, (0, 0), (1, 1), False, (0, 0), len(kernel), [False, True, False]
            )[1]
    return found
