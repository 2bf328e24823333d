"""JPEG 2000 by OpenJPEG: in Pillow, which knows colours and is strict, and in imagecodecs for more than 8 bits."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import formats
from dermq.decoding import pillow
from dermq.decoding.raster import (
    Limits,
    Raster,
    check_zeros,
    make_damaged,
    make_unsupported_pixels,
    reduce_to_8_bits,
    tell_damage,
)
from dermq.formats.jpeg2000 import CODESTREAM

_START = b"\xff\x4f"
_SIZES_AT = 8
_COMPONENTS_AT = 42
_START_OF_TILE = 0x90
_RESTRICTED_PROFILE = 2


def read(data: bytes, limits: Limits) -> Raster:
    """Decode a JPEG 2000. Raises Permanent when pixels are missing."""
    start = data.find(CODESTREAM)
    size = formats.jpeg2000.FORMAT.size(data[start:]) if start != -1 else None
    if size is None:
        raise make_damaged("it ends before its pixels begin")
    formats.check_pixels(*size, limits.max_pixels)
    check_zeros(data[start:])
    _check_tiles(data[start:])
    image = pillow.load(data, "JPEG2000")
    bits = _find_bits(data, start)
    if bits != 8:
        image = _reduce(decode_samples(data, size), bits)
    return Raster(image, size, profile=_find_profile(data[:start]))


def decode_samples(data: bytes, size: formats.Size) -> NDArray[Any]:
    """Return the samples ``(h, w)`` or ``(h, w, c)`` as they are stored.

    Raises Permanent, also when they have not the ``size`` that the file around them announces.
    """
    import imagecodecs  # only for these rare files

    start = data.find(CODESTREAM)
    if start == -1 or formats.jpeg2000.FORMAT.size(data[start:]) != size:
        raise make_damaged("its pixels have another size than it announces")
    _check_tiles(data[start:])
    with tell_damage():
        return np.asarray(imagecodecs.jpeg2k_decode(data))


def _check_tiles(coded: bytes) -> None:
    """Raise Permanent unless every tile has a part at least; OpenJPEG leaves the place of a missing one black."""
    across, down, width, height, left, top = struct.unpack_from(">II8x4I", coded, _SIZES_AT)
    tiles = -(-(across - left) // width) * -(-(down - top) // height) if width and height else 0
    at, found = len(_START), set()
    while len(coded) >= at + 12 and coded[at] == 0xFF:
        marker, length = coded[at + 1], int.from_bytes(coded[at + 2 : at + 4], "big")
        if marker == _START_OF_TILE:
            found.add(int.from_bytes(coded[at + 4 : at + 6], "big"))
            length = int.from_bytes(coded[at + 6 : at + 10], "big") - 2
            if length == -2:  # the last part, up to the end
                break
        if length < 2:
            break
        at += 2 + length
    if len(found) < tiles:
        raise make_damaged("a part of its pixels is missing")


def _find_bits(data: bytes, start: int) -> int:
    """Return the bits of each component, which must be the same and unsigned."""
    (count,) = struct.unpack_from(">H", data, start + _COMPONENTS_AT - 2)
    depths = {data[at] + 1 for at in range(start + _COMPONENTS_AT, start + _COMPONENTS_AT + 3 * count, 3)}
    if len(depths) != 1 or max(depths) > 16:
        raise make_unsupported_pixels("A JPEG 2000 of signed samples, or of several depths")
    return depths.pop()


def _reduce(samples: NDArray[Any], bits: int) -> Image.Image:
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if channels not in (1, 3):
        raise make_unsupported_pixels(f"A JPEG 2000 of {bits} bits with {channels} channels")
    return Image.fromarray(reduce_to_8_bits(samples.reshape(*samples.shape[:2], *([3] if channels == 3 else [])), bits))


def _find_profile(boxes: bytes) -> bytes | None:
    """Return the ICC profile of a JP2's box ``colr``."""
    at = boxes.find(b"colr")
    if at == -1 or boxes[at + 4] != _RESTRICTED_PROFILE:
        return None
    length = int.from_bytes(boxes[at - 4 : at], "big")
    return boxes[at + 7 : at - 4 + length]
