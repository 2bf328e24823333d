"""PNG (ISO/IEC 15948): a signature, then the chunk IHDR with the size."""

import struct

from dermq.formats.image_format import ImageFormat, Size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR_AT = len(_SIGNATURE) + 4


def _read_size(head: bytes) -> Size | None:
    if len(head) < _IHDR_AT + 12 or head[_IHDR_AT : _IHDR_AT + 4] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", head, _IHDR_AT + 4)
    return width, height


FORMAT = ImageFormat("PNG", "image/png", lambda head: head.startswith(_SIGNATURE), _read_size)
