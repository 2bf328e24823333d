"""The gradients of the depthwise convolution equal those of PyTorch."""

import importlib.util
import itertools
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs PyTorch", allow_module_level=True)

import torch
from torch.nn import functional

from training import depthwise

CASES = list(itertools.product((3, 5), ((1, 1), (2, 2), (1, 2)), ((0, 0), (2, 1)), (torch.float32, torch.bfloat16)))


@pytest.mark.parametrize(("side", "strides", "pads", "kind"), CASES)
def test_gradients_are_those_of_pytorch(side: int, strides: Any, pads: Any, kind: Any) -> None:
    chance = torch.Generator().manual_seed(1)
    images = torch.randn(2, 16, 12, 13, generator=chance).to(kind).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(16, 1, side, side, generator=chance).to(kind)
    plain, ours = ([tensor.clone().requires_grad_() for tensor in (images, kernel)] for _ in range(2))
    expected = functional.conv2d(plain[0].float(), plain[1].float(), None, strides, pads, groups=16)
    found = depthwise.convolve(ours[0], ours[1], strides, pads)
    slope = torch.randn(expected.shape, generator=chance).to(kind)
    expected.backward(slope.float())
    found.backward(slope)
    tolerance = 1e-5 if kind == torch.float32 else 2e-2
    for one, other in ((expected, found), *((a.grad, b.grad) for a, b in zip(plain, ours, strict=True))):
        assert other.dtype == kind and other.shape == one.shape
        assert (one - other.float()).abs().max() <= tolerance * one.abs().max()


def test_autocast_reduces_the_precision_and_gradients_come_back_in_float32() -> None:
    images, kernel = torch.ones(1, 16, 8, 8, requires_grad=True), torch.ones(16, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise.convolve(images, kernel, (1, 1), (2, 2))
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert images.grad.dtype == kernel.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_only_the_gradients_that_are_asked_for_are_computed(kind: Any) -> None:
    images, kernel = torch.ones(1, 16, 8, 8, dtype=kind), torch.ones(16, 1, 5, 5, dtype=kind)
    for one, other in ((images, kernel), (kernel, images)):
        asked = one.clone().requires_grad_()
        first, second = (asked, other) if one is images else (other, asked)
        depthwise.convolve(first, second, (2, 2), (2, 2)).float().sum().backward()
        assert asked.grad.shape == one.shape and other.grad is None
