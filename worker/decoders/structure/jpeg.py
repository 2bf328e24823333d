"""JPEG (ITU-T T.81): segments and scans. A progressive image may have any number of scans, each over all pixels."""

import re
import struct

from dermq.formats import Size
from worker.decoders.structure import tiff
from worker.decoders.structure.parts import limit

MOST_SCANS = 100
"""Encoders write about ten; more than a scan for each of 64 coefficients of three components helps nobody."""
MOST_SEGMENTS = 2_000
"""32 MB of application data, in segments of 64 kB each, are 500."""
MOST_STRAY_BYTES = 65_536
"""Fill bytes and bytes that belong to no segment, before the first scan. Pillow reads them one by one."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF = b"Exif\0\0"
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Within a scan, 0xFF00 is a byte of data and 0xFFD0 to 0xFFD7 are restarts."""


def check(data: bytes) -> list[Size]:
    """Count scans, segments and stray bytes, and return the sizes of the frame headers."""
    sizes: list[Size] = []
    exif: list[bytes] = []
    at, scans, segments, stray = 2, 0, 0, 0
    while found := (_MARKER_AFTER_SCAN if scans else _MARKER).search(data, at):
        if not scans:
            stray += found.start() - at
            limit(stray, MOST_STRAY_BYTES, "bytes between its segments")
        segments += 1
        limit(segments, MOST_SEGMENTS, "segments")
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if marker in _FRAME_HEADERS and at + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            sizes.append((width, height))
        elif marker == _APP1 and data.startswith(_EXIF, at + 2):
            exif.append(data[at + 2 + len(_EXIF) : end])
        elif marker == _START_OF_SCAN:
            scans += 1
            limit(scans, MOST_SCANS, "scans")
        at = max(at, end)
    if stray and not scans:
        limit(stray, MOST_STRAY_BYTES, "bytes between its segments")
    tiff.check(b"".join(exif))  # Pillow joins the blocks, too
    return sizes
