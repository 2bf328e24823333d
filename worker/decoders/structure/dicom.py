"""DICOM (PS3.5): elements, and items of sequences, which are nested. A photograph has some hundreds."""

import struct
from collections.abc import Iterable

from dermq.formats import Size
from worker.decoders.structure.parts import limit

MOST_ELEMENTS = 20_000
MOST_ITEMS = 20_000
_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_BIG = b"\xff\xfe\xe0\x00"
_PREAMBLE_BYTES = 132
_LONG = frozenset({b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})
_UNKNOWN_LENGTH = 0xFFFFFFFF


def check(data: bytes) -> Iterable[Size]:
    """Count items everywhere and elements up to the first of unknown length. The decoder tells the size first."""
    limit(data.count(_ITEM) + data.count(_ITEM_BIG), MOST_ITEMS, "items")
    at, elements = (_PREAMBLE_BYTES if data[128:_PREAMBLE_BYTES] == b"DICM" else 0), 0
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 6]
        if kind in _LONG:
            header, length = 12, int.from_bytes(data[at + 8 : at + 12], "little")
        elif kind.isalpha() and kind.isupper():
            header, length = 8, int.from_bytes(data[at + 6 : at + 8], "little")
        else:
            header, (length,) = 8, struct.unpack_from("<I", data, at + 4)
        if length == _UNKNOWN_LENGTH:
            break
        elements += 1
        limit(elements, MOST_ELEMENTS, "elements")
        at += header + length
    return ()
