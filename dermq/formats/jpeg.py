"""JPEG (ITU-T T.81): segments, of which one, the frame header, has the size."""

import struct

from dermq.formats.image_format import ImageFormat, Size

_SIGNATURE = b"\xff\xd8\xff"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers SOF0 to SOF15; the three between them mean something else (table B.1)."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN = 0xDA


def _read_size(head: bytes) -> Size | None:
    at = 2
    while (at := head.find(b"\xff", at)) != -1:
        while head[at : at + 1] == b"\xff":  # any number of fill bytes may stand before a marker
            at += 1
        marker = head[at] if at < len(head) else _START_OF_SCAN
        at += 1
        if marker in _FRAME_HEADERS and at + 7 <= len(head):
            height, width = struct.unpack_from(">HH", head, at + 3)
            return (width, height) if height else None  # 0: the number of lines stands behind the first scan
        if marker == _START_OF_SCAN:
            return None
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(head[at : at + 2], "big")
    return None


FORMAT = ImageFormat("JPEG", "image/jpeg", lambda head: head.startswith(_SIGNATURE), _read_size)
