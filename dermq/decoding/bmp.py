"""BMP: a header, then rows of pixels. Nothing in the file tells whether its bytes were changed, only their number."""

import struct

from dermq import errors, formats
from dermq.decoding import pillow
from dermq.decoding.raster import Limits, Raster, make_damaged, make_unsupported_pixels, note_extra_bytes
from dermq.notes import Note

_HEADER_AT = 14
_CORE_HEADER = 12
_V5_HEADER = 124
_UNCOMPRESSED = (0, 3)
"""Plain rows, without and with masks of bits."""
_EMBEDDED_PROFILE = b"DEBM"


def read(data: bytes, limits: Limits) -> Raster:
    """Decode a BMP. Raises Permanent when rows are missing."""
    size = formats.bmp.FORMAT.size(data)
    if size is None:
        raise make_damaged("it ends in the middle of its header")
    formats.check_pixels(*size, limits.max_pixels)
    try:
        image = pillow.load(data, "BMP")
    except errors.Permanent as err:
        if "Unsupported BMP" in err.detail:
            raise make_unsupported_pixels("A BMP of such bits or such a coding") from err
        raise
    return Raster(image, size, profile=_find_profile(data), notes=_find_notes(data, *size))


def _find_profile(data: bytes) -> bytes | None:
    header_bytes = int.from_bytes(data[_HEADER_AT : _HEADER_AT + 4], "little")
    if header_bytes < _V5_HEADER or data[_HEADER_AT + 56 : _HEADER_AT + 60] != _EMBEDDED_PROFILE:
        return None
    at, length = struct.unpack_from("<II", data, _HEADER_AT + 112)
    return data[_HEADER_AT + at : _HEADER_AT + at + length] or None


def _find_notes(data: bytes, width: int, height: int) -> tuple[Note, ...]:
    """Return a note on bytes behind the pixels, which can be found only where all rows have the same length."""
    start, header_bytes = struct.unpack_from("<II", data, 10)
    layout, at = ("<H", _HEADER_AT + 10) if header_bytes == _CORE_HEADER else ("<HI", _HEADER_AT + 14)
    bits, compression = (*struct.unpack_from(layout, data, at), 0)[:2]
    end = start + (width * bits + 31) // 32 * 4 * height
    if compression not in _UNCOMPRESSED or _find_profile(data) or end >= len(data):
        return ()
    return (note_extra_bytes(len(data) - end),)
