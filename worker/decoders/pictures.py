"""What a decoder is asked for, and what it returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq.formats import Size
from dermq.notes import Note

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """What a bundle sees of an image."""

    size: int
    """The side of its square, in pixels."""
    recipe_version: int


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    pixels: Pixels
    """``(size, size, 3) uint8`` RGB."""
    size: Size
    """Width and height as the file stores them."""
    notes: tuple[Note, ...]
    """What its lab should know of the file."""
    thumbnail: bytes
    """A small JPEG."""
