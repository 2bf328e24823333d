"""DICOM (PS3.5): elements, and items of sequences, which are nested. A photograph has some hundreds."""

import struct
import zlib
from collections.abc import Iterable

from dermq.formats import Size
from worker.decoders.structure.parts import limit

MOST_ELEMENTS = 20_000
MOST_ITEMS = 20_000
MOST_INFLATED_BYTES = 350_000_000
"""50 megapixels in RGB of 16 bits are 300 MB."""
_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_BIG = b"\xff\xfe\xe0\x00"
_PREAMBLE_BYTES = 132
_LONG = frozenset({b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})
_UNKNOWN_LENGTH = 0xFFFFFFFF
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
"""The first element of the file's header, whose value is the length of all others of it."""


def check(data: bytes) -> Iterable[Size]:
    """Count items everywhere, and the elements that are not inside one of known length. The decoder tells the size."""
    data = _inflate(data[_PREAMBLE_BYTES:] if data[128:_PREAMBLE_BYTES] == b"DICM" else data)
    limit(data.count(_ITEM) + data.count(_ITEM_BIG), MOST_ITEMS, "items")
    at = elements = 0
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 6]
        if kind in _LONG:
            header, length = 12, int.from_bytes(data[at + 8 : at + 12], "little")
        elif kind.isalpha() and kind.isupper():
            header, length = 8, int.from_bytes(data[at + 6 : at + 8], "little")
        else:
            header, (length,) = 8, struct.unpack_from("<I", data, at + 4)
        elements += 1
        limit(elements, MOST_ELEMENTS, "elements")
        at += header + (0 if length == _UNKNOWN_LENGTH else length)  # what has no length is walked over
    return ()


def _inflate(data: bytes) -> bytes:
    """Return elements as they are when unpacked. Raises Permanent for more bytes than any photograph has."""
    if not data.startswith(_GROUP_LENGTH):
        return data
    start = len(_GROUP_LENGTH) + 4 + int.from_bytes(data[8:12], "little")
    if _DEFLATED not in data[:start]:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data[start:], MOST_INFLATED_BYTES + 1)
    except zlib.error:
        return data
    limit(len(inflated), MOST_INFLATED_BYTES, "packed bytes")
    return inflated
