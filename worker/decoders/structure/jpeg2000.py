"""JPEG 2000 (ITU-T T.800): tiles, components and layers, whose numbers multiply."""

import struct

from dermq.formats import Size
from worker.decoders.structure.parts import limit

MOST_TILES = 10_000
MOST_COMPONENTS = 16
MOST_MARKERS = 20_000
_CODESTREAM = b"\xff\x4f\xff\x51"
_SIZES = struct.Struct(">IIIIIIIIH")
_SIZES_AT = 8
_START_OF_TILE_PART = b"\xff\x90\x00\x0a"


def check(data: bytes) -> list[Size]:
    """Count tiles, parts of tiles and components of the codestream, and return its size."""
    start = data.find(_CODESTREAM)
    if start == -1 or len(data) < start + _SIZES_AT + _SIZES.size:
        return []
    right, bottom, left, top, across, down, tiles_left, tiles_top, components = _SIZES.unpack_from(
        data, start + _SIZES_AT
    )
    limit(components, MOST_COMPONENTS, "components")
    limit(data.count(_START_OF_TILE_PART), MOST_MARKERS, "parts of tiles")
    if across and down and right > tiles_left and bottom > tiles_top:
        limit(-(-(right - tiles_left) // across) * -(-(bottom - tiles_top) // down), MOST_TILES, "tiles")
    return [(max(right - left, 0), max(bottom - top, 0))]
