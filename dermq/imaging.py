"""From bytes to pixels, the same for training and for workers, so that there is no train/serve skew.

``identify`` reads a header and never decodes; ``prepare`` is the one way from bytes to what a model sees.
"""

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dermq import errors

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
FORMATS_TEXT = "JPEG, PNG, TIFF, WebP and BMP"
THUMBNAIL_SIZE = 192
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

# Our own limit on pixels is checked before anything is decoded; Pillow's would answer with a warning instead.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """What an image's header says, before anything is decoded."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def identify(file: BinaryIO, *, max_pixels: int) -> Header:
    """Read the header of ``file`` without decoding it.

    Raises UnsupportedFormat for unknown magic bytes and for files of several frames, TooLarge for more than
    ``max_pixels`` pixels.
    """
    with _open(file) as image:
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise errors.UnsupportedFormat(
                "several_frames", "The file holds several frames or pages; one image a file is accepted."
            )
        header = Header(_format(image), image.width, image.height)
    if header.pixels > max_pixels:
        raise errors.TooLarge(
            "too_many_pixels",
            f"{header.width} x {header.height} is {header.pixels / 1e6:.1f} megapixels; "
            f"at most {max_pixels / 1e6:g} are accepted.",
        )
    return header


def decode(data: bytes, *, max_pixels: int, draft_size: int | None = None) -> Image.Image:
    """Decode ``data`` into an upright RGB image.

    Transparent pixels are laid on white; 16-bit grey keeps its upper eight bits. With ``draft_size`` a JPEG may be
    decoded at a fraction of its size, never below ``draft_size`` pixels a side.
    Raises Permanent when the bytes cannot be decoded.
    """
    try:
        identify(io.BytesIO(data), max_pixels=max_pixels)
        with _open(io.BytesIO(data)) as image:
            if draft_size is not None:
                image.draft("RGB", (draft_size, draft_size))
            image.load()
            return _rgb(_upright(image))
    except (errors.UnsupportedFormat, errors.TooLarge) as err:
        raise errors.Permanent(err.code, err.detail) from err
    except (errors.Permanent, MemoryError):
        raise
    except Exception as err:  # the edge to foreign decoders: for damaged files they raise anything
        raise errors.Permanent("undecodable", f"The file is damaged and cannot be decoded: {err}") from err


def squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Squash the whole frame to a square: ``(size, size, 3) uint8``."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def prepare(data: bytes, size: int, *, max_pixels: int = 50_000_000) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into what a model sees: ``(size, size, 3) uint8``, RGB."""
    return squash(decode(data, max_pixels=max_pixels), size)


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
        raise errors.UnsupportedFormat(
            "unsupported_format", f"The content is of no accepted format; {FORMATS_TEXT} are accepted."
        ) from err
    except MemoryError:
        raise
    except Exception as err:  # the edge to foreign decoders, as in ``decode``
        raise errors.UnsupportedFormat("unreadable_header", f"The image's header cannot be read: {err}") from err


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Not by ``ImageOps.exif_transpose``: it writes the EXIF block anew and fails over a damaged one, which is none of
    our business.
    """
    try:
        turn = _TURNS.get(int(image.getexif().get(_ORIENTATION, 1)))
    except Exception:  # a damaged EXIF block says nothing about how to turn; the edge to foreign decoders
        return image
    return image if turn is None else image.transpose(turn)


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise errors.Permanent("unsupported_pixels", "Floating-point pixels; 8 or 16 bits a channel are accepted.")
    if image.mode in _NATIVE_MODES and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    paper = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(paper, layered).convert("RGB")
