"""HEIC: HEVC by libheif and libde265 (LGPL), in pi-heif's wheels, which have no encoder and so no code under the GPL.

The library turns the image upright as the file's own properties say; EXIF's orientation does not count in HEIC.
"""

import io

import pi_heif
from PIL import Image

from dermq import formats
from dermq.decoding import base_media
from dermq.decoding.raster import Limits, Raster, make_damaged, make_unsupported_pixels
from dermq.notes import Note

pi_heif.options.DECODE_THREADS = 1
_MODES = {"L", "LA", "RGB", "RGBA"}


def read(data: bytes, limits: Limits) -> Raster:
    """Decode the primary picture of a HEIC. Raises Permanent when pixels are missing."""
    if base_media.is_hdr(data):
        raise make_unsupported_pixels("A HEIC for high dynamic range")
    base_media.check(data)
    try:
        opened = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        found = opened[opened.primary_index]
        width, height = found.size
        formats.check_pixels(width, height, limits.max_pixels)
        mode, profile = found.mode, found.info.get("icc_profile")
        image = Image.frombytes(mode, (width, height), bytes(found.data), "raw", mode, found.stride)
    except (ValueError, EOFError, OSError, RuntimeError, SyntaxError, IndexError) as err:
        raise make_damaged(str(err).rstrip(".")) from err
    if mode not in _MODES:
        raise make_unsupported_pixels(f"A HEIC of the mode {mode}")
    notes = (Note("further_pictures", "The file holds further pictures; the main one was read."),)
    return Raster(image, (width, height), profile=profile, notes=notes if len(opened) > 1 else ())
