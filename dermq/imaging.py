"""Turns the bytes of image files into pixels, in the same way for training and for workers.

Training and prediction must see the same pixels, so ``prepare`` is the one way from bytes to what a model sees.
``dermq.decoding`` has the formats. The web never imports this module: it looks at leading bytes by ``dermq.formats``.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import decoding, errors, recipes
from dermq.decoding import exif, profiles
from dermq.formats import Size
from dermq.notes import Note

THUMBNAIL_SIZE = 192


@dataclass(frozen=True)
class Decoded:
    """A file that was read."""

    image: Image.Image
    """Upright, RGB, 8 bits a channel."""
    size: Size
    """Width and height as the file stores them."""
    notes: tuple[Note, ...] = ()
    """What its lab should know of the file."""


def decode(data: bytes, *, max_pixels: int, draft_size: int | None = None) -> Image.Image:
    """Decode ``data`` into an upright RGB image, as ``read`` does by the newest recipe."""
    return read(data, max_pixels=max_pixels, draft_size=draft_size).image


def read(
    data: bytes, *, max_pixels: int, draft_size: int | None = None, recipe_version: int = recipes.RECIPE_VERSION
) -> Decoded:
    """Decode ``data`` into an upright RGB image by a version of the recipe.

    Transparent pixels are laid on white. More than 8 bits a channel are reduced to the upper 8 of those that the file
    declares. With ``draft_size`` a JPEG may be decoded at a fraction of its size, never below ``draft_size`` pixels a
    side.
    Raises Permanent when the file is damaged or of no format that is read, or when its pixels cannot be shown rightly.
    """
    try:
        raster = decoding.decode(data, decoding.Limits(max_pixels, draft_size))
    except (errors.UnsupportedFormat, errors.TooLarge) as err:
        raise errors.Permanent(err.code, err.detail) from err
    image = raster.image
    if recipe_version >= recipes.WITH_PROFILES:
        image = profiles.convert_to_srgb(image, raster.profile, raster.gamma)
    return Decoded(exif.turn_upright(profiles.convert_to_rgb(image), raster.orientation), raster.size, raster.notes)


def squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Squash the whole frame to a square: ``(size, size, 3) uint8``."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def prepare(
    data: bytes, size: int, *, max_pixels: int = 50_000_000, recipe_version: int = recipes.RECIPE_VERSION
) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into what a model sees: ``(size, size, 3) uint8``, RGB."""
    return squash(read(data, max_pixels=max_pixels, recipe_version=recipe_version).image, size)


def make_thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a decoded image, without any metadata."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    bare = Image.new("RGB", small.size)
    bare.paste(small)
    out = io.BytesIO()
    bare.save(out, "JPEG", quality=80)
    return out.getvalue()
