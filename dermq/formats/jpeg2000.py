"""JPEG 2000 (ITU-T T.800): a codestream, alone or in a JP2 file of boxes."""

import struct

from dermq.formats.image_format import ImageFormat, Size

JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"
_SIZES_AT = 8
_HEADER_BOX_BYTES = 200
"""The box with the size comes among the first ones."""


def _read_size(head: bytes) -> Size | None:
    if head.startswith(CODESTREAM):
        if len(head) < _SIZES_AT + 16:
            return None
        right, bottom, left, top = struct.unpack_from(">IIII", head, _SIZES_AT)
        return (right - left, bottom - top) if right > left and bottom > top else None
    at = head.find(b"ihdr", 0, _HEADER_BOX_BYTES)
    if at == -1 or len(head) < at + 12:
        return None
    height, width = struct.unpack_from(">II", head, at + 4)
    return width, height


FORMAT = ImageFormat("JPEG 2000", "image/jp2", lambda head: head.startswith((JP2, CODESTREAM)), _read_size)
