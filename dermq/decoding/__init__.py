"""From the bytes of image files to pixels: a module for each format of ``dermq.formats``.

Each module is imported when the first file of its format comes, because some need large libraries.
"""

import importlib

from dermq import errors, formats
from dermq.decoding.raster import Limits, Raster, make_damaged

__all__ = ["CODECS", "MODULES", "Limits", "Raster", "decode"]

MODULES = {
    "JPEG": "jpeg",
    "PNG": "png",
    "TIFF": "tiff",
    "WebP": "webp",
    "BMP": "bmp",
    "HEIC": "heic",
    "AVIF": "avif",
    "JPEG 2000": "jpeg2000",
    "DICOM": "dicom",
}
"""The module that decodes each format, by the format's name."""
CODECS = ("jpeg8_decode", "jpegxl_encode_jpeg", "png_decode", "jpeg2k_decode", "jpegls_decode")
"""What the modules use of imagecodecs, which imports each codec when it is first used."""


def decode(data: bytes, limits: Limits) -> Raster:
    """Decode ``data`` by its leading bytes.

    Raises UnsupportedFormat for content of no accepted format, TooLarge over ``limits``, and Permanent for a file that
    is damaged or whose pixels cannot be shown rightly.
    """
    found = formats.find(data[: formats.HEAD_BYTES])
    if found is None:
        raise formats.make_unsupported(data[: formats.HEAD_BYTES])
    module = importlib.import_module(f"dermq.decoding.{MODULES[found.name]}")
    try:
        raster: Raster = module.read(data, limits)
    except (errors.DermqError, MemoryError):
        raise
    except Exception as err:  # a damaged file may lead a parser anywhere
        raise make_damaged(f"{type(err).__name__} in its structure") from err
    # A JPEG may be reduced, and a fax is turned upright by its decoder.
    if found.name != "JPEG" and sorted(raster.image.size) != sorted(raster.size):
        raise make_damaged("its pixels have another size than it announces")
    return raster
