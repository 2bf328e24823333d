"""TIFF 6.0 and BigTIFF: a chain of directories of tags, which also hold the EXIF data of other formats."""

import struct
from dataclasses import dataclass

from dermq.formats import Size
from worker.decoders.structure.parts import limit

MOST_DIRECTORIES = 100
"""A page has one. A file of several pages is refused later, with a clearer text."""
MOST_TAGS = 1_000
"""There are some hundreds of known ones."""
MOST_STRIPS = 100_000
"""20,000 rows, a strip for each, in four planes."""
MOST_VALUES = 200_000
"""A colour table of 16 bits has 196,608. Bytes and texts are limited by the size of the file."""
MOST_SHARED_BYTES = 65_536
"""Tags may share values, but not so that they have many more bytes than the file."""
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""By the number of a type (TIFF 6.0, section 2, and BigTIFF)."""
_PLACES = {4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of offsets, as ``struct`` names them."""
_BYTES_AND_TEXTS = frozenset({1, 2, 6, 7})
_STRIPS = frozenset({273, 279, 324, 325})
"""Offsets and lengths of strips and of tiles."""
_DIRECTORIES_BELOW = 330
"""Offsets of further directories, where some programs put the image itself, or smaller ones."""
_SIZES = ((256, 257), (322, 323))
"""Width and height of the image, and of a tile."""


@dataclass(frozen=True)
class _Layout:
    """How a file writes a directory."""

    first_at: str
    first: int
    count: str
    entry: str
    offset: str


_CLASSIC = _Layout("I", 4, "H", "HHI4s", "I")
_BIG = _Layout("Q", 8, "Q", "HHQ8s", "Q")


def check(data: bytes) -> list[Size]:
    """Count directories, tags and their values, and return the sizes of images and tiles."""
    orders = {b"II": "<", b"MM": ">"}
    if data[:2] not in orders:
        return []
    order = orders[data[:2]]
    # For one of the byte orders, Pillow takes a BigTIFF for a TIFF, so it is looked at as both.
    layouts = [_BIG, _CLASSIC] if b"\x2b" in data[2:4] else [_CLASSIC]
    return [size for layout in layouts for size in _check(data, order, layout)]


def _check(data: bytes, order: str, layout: _Layout) -> list[Size]:
    sizes: list[Size] = []
    seen: set[int] = set()
    value_bytes = 0
    waiting = [_read(data, layout.first, order + layout.first_at)]
    while waiting:
        at = waiting.pop()
        if not at or at in seen:  # the decoder tells when directories lead back to one another
            continue
        seen.add(at)
        limit(len(seen), MOST_DIRECTORIES, "directories or pages")
        count = _read(data, at, order + layout.count)
        limit(count, MOST_TAGS, "tags")
        entry = struct.Struct(order + layout.entry)
        start = at + struct.calcsize(order + layout.count)
        end = start + count * entry.size
        whole = data[start : min(end, len(data))]
        entries = list(entry.iter_unpack(whole[: len(whole) // entry.size * entry.size]))
        value_bytes += sum(_count_value_bytes(data, order, tag) for tag in entries)
        limit(value_bytes, len(data) + MOST_SHARED_BYTES, "bytes in its tags")
        sizes += _find_sizes(order, entries)
        waiting += [*_list_below(data, order, entries), _read(data, end, order + layout.offset)]
    return sizes


def _count_value_bytes(data: bytes, order: str, entry: tuple[int, int, int, bytes]) -> int:
    """Return the bytes of a tag's values, and check their number. Values outside the file are not counted."""
    tag, kind, count, place = entry
    size = _VALUE_BYTES.get(kind, 0) * count
    if size <= len(place) or int.from_bytes(place, "little" if order == "<" else "big") + size > len(data):
        return 0
    if tag in _STRIPS:
        limit(count, MOST_STRIPS, "strips or tiles")
    elif kind not in _BYTES_AND_TEXTS:
        limit(count, MOST_VALUES, "values in one tag")
    return size


def _list_below(data: bytes, order: str, entries: list[tuple[int, int, int, bytes]]) -> list[int]:
    """Return the places of the directories that a directory has below it."""
    found: list[int] = []
    for tag, kind, count, place in entries:
        if tag != _DIRECTORIES_BELOW or kind not in _PLACES:
            continue
        limit(count, MOST_DIRECTORIES, "directories or pages")
        layout = f"{order}{count}{_PLACES[kind]}"
        at = int.from_bytes(place, "little" if order == "<" else "big")
        values = place if struct.calcsize(layout) <= len(place) else data[at : at + struct.calcsize(layout)]
        if struct.calcsize(layout) <= len(values):
            found += struct.unpack_from(layout, values)
    return found


def _find_sizes(order: str, entries: list[tuple[int, int, int, bytes]]) -> list[Size]:
    """Return the sizes of the image and of its tiles, where a directory has them."""
    formats = {1: "B", 3: "H", 4: "I", 16: "Q"}
    values = {
        tag: struct.unpack_from(order + formats[kind], place)[0]
        for tag, kind, _, place in entries
        if kind in formats and struct.calcsize(formats[kind]) <= len(place)
    }
    return [(values[width], values[height]) for width, height in _SIZES if width in values and height in values]


def _read(data: bytes, at: int, layout: str) -> int:
    """Read a number; 0 where the file ends before it."""
    if at + struct.calcsize(layout) > len(data):
        return 0
    found: int = struct.unpack_from(layout, data, at)[0]
    return found
