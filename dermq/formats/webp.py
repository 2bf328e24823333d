"""WebP (RFC 9649): a RIFF container whose first chunk says where the size stands."""

import struct

from dermq.formats.image_format import ImageFormat, Size

_CHUNK_AT = 12
_DATA_AT = _CHUNK_AT + 8
_LOSSLESS_SIGNATURE = 0x2F
_LEAST_BYTES = _DATA_AT + 10


def _matches(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:_CHUNK_AT] == b"WEBP"


def _read_size(head: bytes) -> Size | None:
    chunk = head[_CHUNK_AT : _CHUNK_AT + 4]
    if len(head) < _LEAST_BYTES:
        return None
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (_DATA_AT + 4, _DATA_AT + 7))
        return width, height
    if chunk == b"VP8L" and head[_DATA_AT] == _LOSSLESS_SIGNATURE:
        bits = int.from_bytes(head[_DATA_AT + 1 : _DATA_AT + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, _DATA_AT + 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


FORMAT = ImageFormat("WebP", "image/webp", _matches, _read_size)
