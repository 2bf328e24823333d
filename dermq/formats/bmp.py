"""BMP: a file header of 14 bytes, then one of several information headers, told apart by their length."""

import struct

from dermq.formats.image_format import ImageFormat, Size

_CORE_HEADER = 12
"""Bytes of the header of OS/2 1.x, whose sizes have 16 bits."""
_HEADERS = frozenset({_CORE_HEADER, 40, 52, 56, 64, 108, 124})
"""Bytes of the information headers that there are."""
_HEADER_AT = 14


def _matches(head: bytes) -> bool:
    return head.startswith(b"BM") and _read_header_bytes(head) in _HEADERS


def _read_size(head: bytes) -> Size | None:
    layout = "<HH" if _read_header_bytes(head) == _CORE_HEADER else "<ii"
    if len(head) < _HEADER_AT + 4 + struct.calcsize(layout):
        return None
    width, height = struct.unpack_from(layout, head, _HEADER_AT + 4)
    return abs(width), abs(height)  # a negative height says that the top row comes first


def _read_header_bytes(head: bytes) -> int:
    return int.from_bytes(head[_HEADER_AT : _HEADER_AT + 4], "little")


FORMAT = ImageFormat("BMP", "image/bmp", _matches, _read_size)
