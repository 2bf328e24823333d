"""Where the coded pixels of HEIC and AVIF lie (ISO/IEC 14496-12), to tell whether they are all there.

The decoders do not notice zeros within a file, as they are left where a transfer broke off.
"""

from collections.abc import Iterator

from dermq.decoding.raster import check_zeros, make_damaged

_CODED = frozenset({b"hvc1", b"hev1", b"av01"})
_HDR_TRANSFERS = frozenset({16, 18})
"""PQ and HLG (ITU-T H.273): values for screens that are brighter than sRGB."""
_MOST_BOXES = 10_000
_MOST_SHARED = 2
"""Items may lie in the same bytes, but not so that they have many times those of the file."""


def check(data: bytes) -> None:
    """Raise Permanent unless every coded picture of the file lies inside it and has no long run of zeros."""
    meta = next((body for kind, body in _read_boxes(data) if kind == b"meta"), None)
    if meta is None:
        raise make_damaged("it ends in the middle of its header")
    inner = dict(_read_boxes(meta[4:]))
    kinds = dict(_read_kinds(inner.get(b"iinf", b"")))
    looked_at = 0
    for number, (item, in_file, offset, length) in enumerate(_read_places(inner.get(b"iloc", b""))):
        if number > _MOST_BOXES or looked_at > _MOST_SHARED * len(data):
            raise make_damaged("it is made of more pieces than it has bytes for")
        if kinds.get(item) in _CODED and in_file:
            looked_at += length
            if offset + length > len(data):
                raise make_damaged("a part of its pixels is missing")
            check_zeros(data[offset : offset + length])


def is_hdr(data: bytes) -> bool:
    """Return whether the file declares values that need another screen than sRGB's."""
    at = data.find(b"colrnclx")
    return at != -1 and int.from_bytes(data[at + 10 : at + 12], "big") in _HDR_TRANSFERS


def _read_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the boxes in ``data``, the last one cut where the data ends."""
    at = 0
    for _ in range(_MOST_BOXES):
        length, kind, header = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif length == 0:
            length = len(data) - at
        if len(kind) < 4 or length < header:
            return
        yield kind, data[at + header : at + length]
        at += length


def _read_kinds(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the items of a box ``iinf`` and their kinds."""
    count_bytes = 2 if body[:1] == b"\0" else 4
    for kind, entry in _read_boxes(body[4 + count_bytes :]):
        if kind == b"infe":
            id_bytes = 4 if entry[:1] == b"\x03" else 2
            yield int.from_bytes(entry[4 : 4 + id_bytes], "big"), entry[6 + id_bytes : 10 + id_bytes]


def _read_places(body: bytes) -> Iterator[tuple[int, bool, int, int]]:
    """Yield the pieces of items in a box ``iloc``: item, whether it lies in the file itself, offset, and length."""
    version, at = body[0] if body else 0, 4

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(body[at - size : at], "big")

    sizes = read(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in range(min(read(wide), _MOST_BOXES)):
        item = read(wide)
        method = read(2) & 15 if version in (1, 2) else 0
        read(2)
        base = read(base_bytes)
        for _ in range(min(read(2), _MOST_BOXES)):
            if version in (1, 2):
                read(index_bytes)
            offset, length = base + read(offset_bytes), read(length_bytes)
            yield item, method == 0, offset, length
