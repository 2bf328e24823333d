"""WebP (RFC 9649): chunks of a RIFF container. Every frame of an animation is a chunk."""

import struct

from dermq.formats import Size
from worker.decoders.structure import tiff
from worker.decoders.structure.parts import limit

MOST_CHUNKS = 1_000
_CHUNKS_AT = 12
_CHUNK = struct.Struct("<4sI")


def check(data: bytes) -> list[Size]:
    """Count the chunks. The size stands among the leading bytes."""
    at, chunks = _CHUNKS_AT, 0
    while at + _CHUNK.size <= len(data):
        name, length = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        chunks += 1
        limit(chunks, MOST_CHUNKS, "chunks or frames")
        if name == b"EXIF":
            tiff.check(data[at : at + length].removeprefix(b"Exif\0\0"))
        at += length + length % 2
    return []
