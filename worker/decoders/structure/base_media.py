"""HEIC and AVIF (ISO/IEC 14496-12): boxes, and items that lie in pieces. A telephone's picture is a grid of tiles."""

import struct

from dermq.formats import Size
from worker.decoders.structure.parts import limit

MOST_BOXES = 10_000
"""A picture of 50 megapixels in tiles of 512 is about 200 items, and a few properties."""
_KINDS = (b"infe", b"ispe", b"ipma", b"iref", b"dimg", b"trak", b"moof")


def check(data: bytes) -> list[Size]:
    """Count boxes of the kinds that a file may repeat, wherever they stand, and return the sizes of items."""
    limit(sum(data.count(kind) for kind in _KINDS), MOST_BOXES, "items")
    sizes: list[Size] = []
    at = data.find(b"ispe")
    while at != -1 and at + 16 <= len(data):
        if data[at - 4 : at] == b"\0\0\0\x14":  # the whole box has 20 bytes
            width, height = struct.unpack_from(">II", data, at + 8)
            sizes.append((width, height))
        at = data.find(b"ispe", at + 4)
    return sizes
