"""Decodes the bytes of one image by Pillow, for the formats that it reads correctly."""

import io
import warnings
from typing import Any

from PIL import Image

from dermq import errors, formats
from dermq.decoding.raster import make_damaged

# Each format checks the limit on pixels before anything is decoded; Pillow's own limit only warns.
Image.MAX_IMAGE_PIXELS = None


def load(data: bytes, name: str) -> Image.Image:
    """Decode ``data`` by the plugin ``name`` into the mode L, LA, RGB, RGBA or CMYK. Raises Permanent."""
    return load_with_info(data, name)[0]


def load_with_info(data: bytes, name: str, max_pixels: int | None = None) -> tuple[Image.Image, dict[str, Any]]:
    """Decode as ``load`` does, and also return what Pillow says about the file, with the number of its ``frames``.

    Raises TooLarge for more than ``max_pixels`` pixels, before they are decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings are about metadata; lost pixels are an error
            with Image.open(io.BytesIO(data), formats=[name]) as image:
                if max_pixels is not None:
                    formats.check_pixels(*image.size, max_pixels)
                frames = getattr(image, "n_frames", 1)
                image.load()
                told = {name: image.info.get(name) for name in ("exif", "icc_profile")}
                return simplify(image), {**told, "frames": frames}
    except (MemoryError, errors.TooLarge):
        raise
    except Exception as err:  # Pillow raises any exception for a damaged file
        raise make_damaged(err) from err


def simplify(image: Image.Image) -> Image.Image:
    """Return an image of one of the modes that a raster may have."""
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "YCbCr", "RGBX"):
        return image.convert("RGBA" if image.mode == "P" and image.palette and image.palette.mode == "RGBA" else "RGB")
    return image.copy()
