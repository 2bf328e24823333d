"""The orientation of an image, the only part of EXIF that is used. A broken block is ignored."""

import re
import warnings

from PIL import Image

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
UPRIGHT = 1
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


def find_orientation(block: bytes | None, xmp: bytes | None = None) -> int:
    """Return the orientation of an EXIF block, with or without its leading ``Exif``, else of an XMP packet, else 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Image.Exif()
            found.load(block or b"")
            given = found.get(_ORIENTATION)
            return _read_xmp(xmp) if given is None else int(given)
    except Exception:  # Pillow raises any exception for a damaged EXIF block; the image is then taken as it is
        return _read_xmp(xmp)


def _read_xmp(packet: bytes | None) -> int:
    given = _XMP_ORIENTATION.search(packet or b"")
    return int(given[1]) if given else UPRIGHT


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as its EXIF orientation says."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
