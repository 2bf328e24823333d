"""From the bytes of image files to pixels: a module for each format of ``dermq.formats``.

Each module is imported when the first file of its format comes, because some need large libraries.
"""

import importlib

from dermq import formats
from dermq.decoding.raster import Limits as Limits
from dermq.decoding.raster import Raster as Raster

MODULES = {"JPEG": "jpeg", "PNG": "png", "TIFF": "tiff", "WebP": "webp", "BMP": "bmp"}
"""The module that decodes each format, by the format's name."""


def decode(data: bytes, limits: Limits) -> Raster:
    """Decode ``data`` by its leading bytes.

    Raises UnsupportedFormat for content of no accepted format, TooLarge over ``limits``, and Permanent for a file that
    is damaged or whose pixels cannot be shown rightly.
    """
    found = formats.find(data[: formats.HEAD_BYTES])
    if found is None:
        raise formats.make_unsupported()
    raster: Raster = importlib.import_module(f"dermq.decoding.{MODULES[found.name]}").read(data, limits)
    return raster
