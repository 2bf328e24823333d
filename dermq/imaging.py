"""Turns the bytes of image files into pixels, by Pillow, in the same way for training and for workers.

Training and prediction must see the same pixels, so ``prepare`` is the one way from bytes to what a model sees.
The web never imports this module: it looks at leading bytes by ``dermq.formats``.
"""

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dermq import errors, formats, recipes
from dermq.formats import Size
from dermq.notes import Note

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
"""Pillow's names of the formats of ``dermq.formats``."""
THUMBNAIL_SIZE = 192
MAX_SIDE = 20_000
"""The default of the most pixels on a side."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation (EXIF 2.32, table 4)."""
_NATIVE_MODES = frozenset({"L", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "1"})

# ``identify`` checks our own limit on pixels before anything is decoded; Pillow's own limit only warns.
Image.MAX_IMAGE_PIXELS = None


def identify(file: BinaryIO, *, max_pixels: int, max_side: int = MAX_SIDE) -> Size:
    """Read width and height, as stored, from the header of ``file`` without decoding its pixels.

    Raises UnsupportedFormat for unknown leading bytes, for a damaged header and for files of several frames, TooLarge
    for more than ``max_pixels`` pixels or a side of more than ``max_side``.
    """
    with _open(file) as image:
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise errors.UnsupportedFormat(
                "several_frames", "The file holds several frames or pages; one image a file is accepted."
            )
        size = image.size
    formats.check_size(*size, max_pixels=max_pixels, max_side=max_side)
    return size


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
    data: bytes,
    *,
    max_pixels: int,
    max_side: int = MAX_SIDE,
    draft_size: int | None = None,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> Decoded:
    """Decode ``data`` into an upright RGB image by a version of the recipe.

    Transparent pixels are laid on white; 16-bit grey keeps its upper eight bits. With ``draft_size`` a JPEG may be
    decoded at a fraction of its size, never below ``draft_size`` pixels a side.
    Raises Permanent when the bytes cannot be decoded.
    """
    try:
        size = identify(io.BytesIO(data), max_pixels=max_pixels, max_side=max_side)
        with _open(io.BytesIO(data)) as image:
            if draft_size is not None:
                image.draft("RGB", (draft_size, draft_size))
            image.load()
            return Decoded(_rgb(_upright(image)), size)
    except (errors.UnsupportedFormat, errors.TooLarge) as err:
        raise errors.Permanent(err.code, err.detail) from err
    except (errors.Permanent, MemoryError):
        raise
    except Exception as err:  # Pillow raises any exception for a damaged file
        raise errors.Permanent("undecodable", f"The file is damaged and cannot be decoded: {err}") from err


def squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Squash the whole frame to a square: ``(size, size, 3) uint8``."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def prepare(
    data: bytes, size: int, *, max_pixels: int = 50_000_000, recipe_version: int = recipes.RECIPE_VERSION
) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into what a model sees: ``(size, size, 3) uint8``, RGB."""
    return squash(read(data, max_pixels=max_pixels, recipe_version=recipe_version).image, size)


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a decoded image, without any metadata."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    bare = Image.new("RGB", small.size)
    bare.paste(small)
    out = io.BytesIO()
    bare.save(out, "JPEG", quality=80)
    return out.getvalue()


def _open(file: BinaryIO) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block is no reason to refuse an image
            return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as err:
        file.seek(0)
        if formats.find(file.read(formats.HEAD_BYTES)) is None:
            raise formats.unsupported() from err
        raise errors.UnsupportedFormat(
            "unreadable_header", "The image's header is damaged and cannot be read."
        ) from err
    except MemoryError:
        raise
    except Exception as err:  # Pillow raises any exception for a damaged file
        raise errors.UnsupportedFormat("unreadable_header", f"The image's header cannot be read: {err}") from err


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    ``ImageOps.exif_transpose`` also writes the EXIF block anew and raises an error over a damaged block, although only
    the orientation matters here.
    """
    try:
        turn = _TURNS.get(int(image.getexif().get(_ORIENTATION, 1)))
    except Exception:  # Pillow raises any exception for a damaged EXIF block; the image is then taken as it is
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image) >> 8  # in its own type: a wider one would take gigabytes for 50 megapixels
        return Image.fromarray(np.clip(grey, 0, 255, out=grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise errors.Permanent("unsupported_pixels", "Floating-point pixels; 8 or 16 bits a channel are accepted.")
    if image.mode in _NATIVE_MODES and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    paper = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(paper, layered).convert("RGB")
