"""The marker segments of a JPEG (ITU-T T.81): what it announces, and whether all scans are there.

A decoder takes a progressive JPEG that lacks its last scans for a whole one, so this is told by the scans' headers.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dermq.decoding.raster import make_damaged

SOI, EOI, SOS, DQT, DHT, DRI, APP0, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE
END = b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE_HUFFMAN = 0xC2
PROGRESSIVE = frozenset({PROGRESSIVE_HUFFMAN, 0xCA})
LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN_ENDS = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""Inside a scan, FF is followed by 00, or begins one of the restart markers D0 to D7, or ends the scan."""
_ICC = b"ICC_PROFILE\0"
_EXIF = b"Exif\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Frame:
    """A frame header."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[int, ...]
    """Their ids."""
    sampling: tuple[tuple[int, int], ...]
    """Horizontal and vertical sampling factors of each component."""


@dataclass(frozen=True)
class Scan:
    """A scan header, and where its data lies."""

    components: tuple[int, ...]
    tables: tuple[tuple[int, int], ...]
    """The DC and AC table of each component."""
    first: int
    last: int
    high: int
    low: int
    start: int
    stop: int


@dataclass
class Structure:
    """What the segments of one JPEG say."""

    frame: Frame | None = None
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    """Marker, start and stop of each segment before, between and behind the scans, markers left out."""
    scans: list[Scan] = field(default_factory=list)
    between: int = 0
    """Bytes between segments that belong to none."""
    end: int | None = None
    """Where the end marker ends; None when it is missing."""

    def read_payloads(self, data: bytes, marker: int) -> Iterator[bytes]:
        """Yield the content of each segment with this marker."""
        for found, start, stop in self.segments:
            if found == marker:
                yield data[start + 2 : stop]

    def find_exif(self, data: bytes) -> bytes | None:
        return next((block for block in self.read_payloads(data, APP1) if block.startswith(_EXIF)), None)

    def find_xmp(self, data: bytes) -> bytes | None:
        return next((block for block in self.read_payloads(data, APP1) if block.startswith(_XMP)), None)

    def has_adobe(self, data: bytes) -> bool:
        """Return whether there is an Adobe segment; its programs store CMYK inverted."""
        return any(block.startswith(b"Adobe") for block in self.read_payloads(data, APP14))

    def holds_ycc(self, data: bytes) -> bool:
        """Return whether a JFIF marker, or Adobe's with transform 1, says that three components are Y, Cb and Cr."""
        if any(block.startswith(b"JFIF\0") for block in self.read_payloads(data, APP0)):
            return True
        return any(block.startswith(b"Adobe") and block[11:12] == b"\x01" for block in self.read_payloads(data, APP14))

    def find_profile(self, data: bytes) -> bytes | None:
        """Return the ICC profile, put together from its numbered parts; None when one is missing."""
        parts = {
            block[12]: block[14:] for block in self.read_payloads(data, APP2) if block[:12] == _ICC and len(block) > 14
        }
        counts = {block[13] for block in self.read_payloads(data, APP2) if block[:12] == _ICC and len(block) > 14}
        if len(counts) != 1 or set(parts) != set(range(1, counts.pop() + 1)):
            return None
        return b"".join(parts[number] for number in sorted(parts))

    def holds_further_pictures(self, data: bytes) -> bool:
        """Return whether the file says that pictures follow this one (CIPA DC-007, Multi-Picture Format)."""
        return any(block.startswith(b"MPF\0") for block in self.read_payloads(data, APP2))


def parse(data: bytes) -> Structure:
    """Read the segments of the first JPEG in ``data``. Raises Permanent when they end early or announce no image."""
    found, at = Structure(), 2
    while (marker_at := data.find(b"\xff", at)) != -1:
        found.between += marker_at - at
        at = marker_at
        while data[at : at + 1] == b"\xff":  # any number of fill bytes may stand before a marker
            at += 1
        if at == len(data):
            break
        marker, at = data[at], at + 1
        if marker == EOI:
            found.end = at
            break
        if marker in (0x00, SOI) or marker in _WITHOUT_LENGTH:
            found.between += 2 * (marker == 0x00)
            continue
        stop = at + int.from_bytes(data[at : at + 2], "big")
        if stop < at + 2 or stop > len(data):
            raise make_damaged(
                "it ends in the middle of its header" if not found.scans else "it ends before its last scan"
            )
        found.segments.append((marker, at, stop))
        if marker in _FRAMES:
            found.frame = _read_frame(marker, data[at + 2 : stop])
        elif marker == SOS:
            stop = _add_scan(found, data, at + 2, stop)
        at = stop
    if found.frame is None or not found.scans:
        raise make_damaged("it ends before its pixels begin")
    return found


def check_scans(found: Structure) -> None:
    """Raise Permanent when scans are missing: each must bring every component, a progressive image every bit."""
    assert found.frame is not None
    missing = set(found.frame.components) - {one for scan in found.scans for one in scan.components}
    if missing:
        raise make_damaged(f"{len(missing)} of its {len(found.frame.components)} colour components are missing")
    if found.frame.marker in PROGRESSIVE and not all(_is_complete(found.scans, one) for one in found.frame.components):
        raise make_damaged("the last scans are missing, which hold the details")


def _is_complete(scans: Sequence[Scan], component: int) -> bool:
    """Return whether progressive scans bring all 64 coefficients of a component down to their last bit."""
    left = [1] * 64
    for scan in scans:
        if component in scan.components:
            for coefficient in range(scan.first, min(scan.last, 63) + 1):
                left[coefficient] = scan.low
    return not any(left)


def _is_alone(frame: Frame, components: int) -> bool:
    """Return whether a scan of so many components is the only one."""
    return frame.marker not in PROGRESSIVE and components == len(frame.components)


def _find_scan_end(data: bytes, start: int, *, alone: bool) -> int:
    """Return where the data of a scan ends. A scan that is alone ends at the end marker, which is found much faster."""
    if alone and (end := data.find(END, start)) != -1:
        return end
    ended = _SCAN_ENDS.search(data, start)
    return len(data) if ended is None else ended.start()


def _read_frame(marker: int, body: bytes) -> Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise make_damaged("its frame header is too short")
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    parts = [body[6 + 3 * n : 9 + 3 * n] for n in range(count)]
    sampling = tuple((part[1] >> 4, part[1] & 15) for part in parts)
    return Frame(marker, precision, width, height, tuple(part[0] for part in parts), sampling)


def _add_scan(found: Structure, data: bytes, start: int, stop: int) -> int:
    """Add the scan whose header lies from ``start`` to ``stop``, and return where its data ends."""
    count = data[start] if start < stop else 0
    body = data[start + 1 : stop]
    if not 1 <= count <= 4 or len(body) < 2 * count + 3:
        raise make_damaged("the header of a scan is broken")
    first, last, bits = body[2 * count : 2 * count + 3]
    end = _find_scan_end(data, stop, alone=found.frame is not None and _is_alone(found.frame, count))
    found.scans.append(
        Scan(
            components=tuple(body[0 : 2 * count : 2]),
            tables=tuple((byte >> 4, byte & 15) for byte in body[1 : 2 * count : 2]),
            first=first,
            last=last,
            high=bits >> 4,
            low=bits & 15,
            start=stop,
            stop=end,
        )
    )
    return end
