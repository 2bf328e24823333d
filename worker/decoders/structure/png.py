"""PNG (ISO/IEC 15948): chunks, of any number and length."""

import struct

from dermq.formats import Size
from worker.decoders.structure import tiff
from worker.decoders.structure.parts import limit

MOST_CHUNKS = 20_000
"""32 MB of pixels in chunks of 8 kB, as libpng writes them, are 4,000."""
_SIGNATURE_BYTES = 8
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4


def check(data: bytes) -> list[Size]:
    """Count the chunks, and return the sizes of the headers."""
    sizes: list[Size] = []
    at, chunks = _SIGNATURE_BYTES, 0
    while at + _CHUNK.size <= len(data):
        length, name = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        chunks += 1
        limit(chunks, MOST_CHUNKS, "chunks")
        if name == b"IHDR" and at + 8 <= len(data):
            width, height = struct.unpack_from(">II", data, at)
            sizes.append((width, height))
        elif name == b"eXIf":
            tiff.check(data[at : at + length])
        elif name == b"IEND":
            break
        at += length + _CHECKSUM_BYTES
    return sizes
