"""The result of a format's decoder: pixels as the file stores them, and what is needed to show them correctly."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import errors
from dermq.formats import Size
from dermq.notes import Note

_ZERO_BYTES = 256


@dataclass(frozen=True)
class Limits:
    """What a caller allows and wants."""

    max_pixels: int
    draft_size: int | None = None
    """A side in pixels below which a JPEG is never reduced while it is decoded; None decodes the whole size."""


@dataclass(frozen=True)
class Raster:
    """The pixels of a file, not yet upright and in the colours of the file."""

    image: Image.Image
    """Of mode L, LA, RGB, RGBA, CMYK (0 is no ink) or LAB, 8 bits a channel."""
    size: Size
    """Width and height as the file stores them."""
    orientation: int = 1
    """As EXIF gives it."""
    profile: bytes | None = None
    """The embedded ICC profile."""
    gamma: float | None = None
    """The exponent with which the file's values were made of light, where it gives one instead of a profile."""
    notes: tuple[Note, ...] = ()


def make_damaged(why: object) -> errors.Permanent:
    """Return the error for a file whose pixels are not all there, or not as they were written."""
    return errors.Permanent("damaged", f"The file is damaged and cannot be decoded: {why}.")


@contextlib.contextmanager
def tell_damage() -> Iterator[None]:
    """Turn whatever a library raises for a damaged file into ``damaged``. Our own errors and a lack of memory stay."""
    try:
        yield
    except (errors.DermqError, MemoryError):
        raise
    except Exception as err:  # libraries raise errors of their own and of Python
        raise make_damaged(err) from err


def make_unsupported_pixels(what: str) -> errors.Permanent:
    """Return the error for pixels that cannot be shown correctly."""
    return errors.Permanent("unsupported_pixels", f"{what} cannot be read; save the image as PNG, TIFF or JPEG in RGB.")


def make_several_frames(count: int) -> errors.Permanent:
    """Return the error for a file that holds more than one image."""
    return errors.Permanent("several_frames", f"The file holds {count} frames or pages; one image a file is accepted.")


def note_extra_bytes(count: int, where: str = "follow the end of the image") -> Note:
    """Return the note on bytes that belong to no pixel."""
    return Note("extra_bytes", f"{count:,} {'byte' if count == 1 else 'bytes'} {where}; they were left out.")


def reduce_to_8_bits(samples: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """Return the upper eight of ``bits`` bits; fewer bits are spread over the whole range."""
    if bits >= 8:
        return (samples >> (bits - 8)).astype(np.uint8)
    most = (1 << bits) - 1
    return ((samples.astype(np.uint16) * 255 + most // 2) // most).astype(np.uint8)


def check_zeros(coded: bytes, longest: int = _ZERO_BYTES) -> None:
    """Raise Permanent when arithmetically coded pixels hold a run of ``longest`` zeros; coders give no such runs."""
    if bytes(longest) in coded:
        raise make_damaged("a part of its pixels is overwritten by zeros")
