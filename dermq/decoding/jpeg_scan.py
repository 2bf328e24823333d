"""Whether the entropy-coded data of a JPEG's scans is whole, as far as a decoder does not tell.

libjpeg-turbo warns of most damage, but not of zeroed blocks that happen to hold as many symbols as are missing, and the
library that decodes 12 bits and lossless JPEG passes no warnings on.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from dermq.decoding.jpeg_structure import DHT, DRI, LOSSLESS, PROGRESSIVE, SOS, Frame, Scan, Structure
from dermq.decoding.raster import make_damaged

Codes = Sequence[tuple[int, int] | None]
"""By the next 16 bits: the length of the code that they begin with, and its symbol."""
Tables = Mapping[int, bytes]
"""The content of Huffman tables, lengths and symbols, by class and id in one byte as DHT has them (T.81, B.2.4.2)."""

DC, AC = 0x00, 0x10
ARITHMETIC = frozenset(range(0xC9, 0xD0))
_ZERO_BYTES = 16
"""A run of zero bytes that is read as dozens of equal symbols, which no picture has."""
_ARITHMETIC_ZERO_BYTES = 256
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def check_zeros(data: bytes, found: Structure) -> None:
    """Raise Permanent when a part of a scan was overwritten by zeros.

    The code of only zero bits stands for the table's first symbol. Where that does not mean that blocks are flat, the
    zeros were not written by an encoder. A run at the very end of a scan is left to the decoder.
    """
    for scan, tables, _ in pair_with_tables(data, found):
        assert found.frame is not None
        arithmetic = found.frame.marker in ARITHMETIC
        run = bytes(_ARITHMETIC_ZERO_BYTES if arithmetic else _ZERO_BYTES)
        at = data.find(run, scan.start, scan.stop)
        if at == -1 or not data[at : scan.stop].strip(b"\0"):
            continue
        if arithmetic or not _is_flat_by_zeros(found.frame, scan, tables):
            raise make_damaged("a part of its pixels is overwritten by zeros")


def check_symbols(data: bytes, found: Structure) -> None:
    """Raise Permanent unless the symbols of all scans are exactly those of the pixels that the header announces.

    For sequential and lossless Huffman coding. It takes about a second for a megabyte.
    """
    assert found.frame is not None
    lossless = found.frame.marker in LOSSLESS
    for scan, tables, restart_interval in pair_with_tables(data, found):
        pairs, mcus = lay_out(found.frame, scan)
        blocks = [(find_codes(tables, DC | dc), None if lossless else find_codes(tables, AC | ac)) for dc, ac in pairs]
        for units, body in split_intervals(data, scan, restart_interval or mcus, mcus):
            _walk(body, len(units), blocks)


def pair_with_tables(data: bytes, found: Structure) -> Iterator[tuple[Scan, dict[int, bytes], int]]:
    """Yield each scan with the Huffman tables and the restart interval that hold for it."""
    tables: dict[int, bytes] = {}
    restart_interval, scans = 0, iter(found.scans)
    for marker, start, stop in found.segments:
        body = data[start + 2 : stop]
        if marker == DHT:
            tables.update(_split_tables(body))
        elif marker == DRI:
            restart_interval = int.from_bytes(body[:2], "big")
        elif marker == SOS:
            yield next(scans), dict(tables), restart_interval


def _split_tables(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= 17:
        stop = 17 + sum(body[1:17])
        yield body[0], body[1:stop]
        body = body[stop:]


def _is_flat_by_zeros(frame: Frame, scan: Scan, tables: Tables) -> bool:
    """Return whether a run of zero bits means blocks without any change, in every component of a scan."""
    firsts = [
        (tables.get(DC | dc, b"")[16:17], tables.get(AC | ac, b"")[16:17]) for dc, ac in scan.tables
    ]  # the first symbol of each table
    if frame.marker in LOSSLESS:
        return all(dc == b"\0" for dc, _ in firsts)
    if frame.marker not in PROGRESSIVE:
        return all(first == (b"\0", b"\0") for first in firsts)
    if scan.first == 0:  # a refinement of DC has plain bits, and zeros where nothing changes
        return scan.high > 0 or all(dc == b"\0" for dc, _ in firsts)
    (_, ac_table), (_, first) = scan.tables[0], firsts[0]
    return first == b"\0" and not _ends_runs(tables.get(AC | ac_table, b""))


def _ends_runs(table: bytes) -> bool:
    """Return whether a table has symbols that end many blocks at once. Then no encoder ends one after the other."""
    return any(symbol & 15 == 0 and symbol not in (0x00, 0xF0) for symbol in table[16:])


@functools.lru_cache(maxsize=8)
def _list_codes(table: bytes) -> Codes:
    """Return the canonical Huffman codes of a table (T.81, annex C)."""
    codes: list[tuple[int, int] | None] = []
    symbols = iter(table[16:])
    for length, count in enumerate(table[:16], start=1):
        for symbol in [one for _, one in zip(range(count), symbols, strict=False)]:
            codes.extend([(length, symbol)] * (1 << (16 - length)))
    return (codes + [None] * (65_536 - len(codes)))[:65_536]


def lay_out(frame: Frame, scan: Scan) -> tuple[list[tuple[int, int]], int]:
    """Return the DC and AC table of each block of a minimum coded unit (MCU), and how many units a scan has (A.2)."""
    side = 1 if frame.marker in LOSSLESS else 8
    widest, highest = (max(factors) for factors in zip(*frame.sampling, strict=True))
    blocks: list[tuple[int, int]] = []
    for component, pair in zip(scan.components, scan.tables, strict=True):
        across, down = frame.sampling[frame.components.index(component)]
        blocks += [pair] * (across * down if len(scan.components) > 1 else 1)
    if len(scan.components) > 1:
        return blocks, -(-frame.width // (side * widest)) * -(-frame.height // (side * highest))
    width, height = -(-frame.width * across // widest), -(-frame.height * down // highest)
    return blocks, -(-width // side) * -(-height // side)


def split_intervals(data: bytes, scan: Scan, per_interval: int, mcus: int) -> Iterator[tuple[range, bytes]]:
    """Yield the numbers of the units between two restart markers, and their bytes. Raises Permanent if some miss."""
    intervals = _RESTART.split(data[scan.start : scan.stop])
    if len(intervals) != -(-mcus // per_interval):
        raise make_damaged("a part of its pixels is missing")
    for number, interval in enumerate(intervals):
        first = number * per_interval
        yield range(first, min(first + per_interval, mcus)), interval.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")


def find_codes(tables: Tables, key: int) -> Codes:
    """Return the codes of a table. Raises Permanent when no segment brings it."""
    if key not in tables:
        raise make_damaged("a Huffman table is missing")
    return _list_codes(tables[key])


def _walk(body: bytes, mcus: int, blocks: Sequence[tuple[Codes, Codes | None]]) -> None:
    """Read the symbols of ``mcus`` units. Raises Permanent when they are too few, too many, or of no table."""
    at, end = 0, 8 * len(body)
    padded = body + bytes(4)

    def read(codes: Codes) -> int:
        nonlocal at
        byte = at >> 3
        found = codes[int.from_bytes(padded[byte : byte + 3], "big") >> (8 - (at & 7)) & 0xFFFF]
        if found is None or at > end:
            raise make_damaged("its pixels cannot be told from its data")
        at += found[0]
        return found[1]

    for _ in range(mcus):
        for dc, ac in blocks:
            bits = read(dc) & 15  # 16, of lossless coding, has no further bits
            at += bits
            coefficient = 1
            while ac is not None and coefficient < 64:
                symbol = read(ac)
                if symbol & 15 == 0 and symbol != 0xF0:
                    break
                at += symbol & 15
                coefficient += (symbol >> 4) + 1
            if coefficient > 64:
                raise make_damaged("its pixels cannot be told from its data")
    if at > end or end - at >= 8:
        raise make_damaged("it has more or fewer pixels than its header announces")
