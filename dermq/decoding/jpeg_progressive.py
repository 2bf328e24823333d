"""Whether the scans of a progressive JPEG hold exactly the coefficients that it announces (ITU-T T.81, annex G).

libjpeg-turbo does not warn when a run of zeros leads beyond the last coefficient of a block, or when a run of empty
blocks leads beyond the last block. Damage that happens to take the right number of bytes is found by these two alone.
"""

from collections.abc import Sequence

import imagecodecs

from dermq.decoding import jpeg_scan
from dermq.decoding.jpeg_scan import Codes
from dermq.decoding.jpeg_structure import Scan, Structure, parse
from dermq.decoding.raster import make_damaged

MOST_BYTES = 2_000_000
"""A larger file is not checked: it would take seconds, of which a decoder has few."""
_SKIP_16 = 0xF0


def check(data: bytes) -> None:
    """Raise Permanent unless the symbols of all Huffman-coded scans fit the blocks; ``data`` is without spare bytes.

    libjxl reads most files more strictly than libjpeg, in little time. It also turns away kinds of JPEG that it does
    not know, so what it turns away is decided by reading the symbols here, at about two seconds for a megabyte.
    """
    if len(data) > MOST_BYTES:
        return
    try:
        imagecodecs.jpegxl_encode_jpeg(data)
    except Exception:  # imagecodecs raises errors of its own and of Python
        check_symbols(data, parse(data))


def check_symbols(data: bytes, found: Structure) -> None:
    """Raise Permanent unless the symbols of all scans are exactly those of the blocks that the header announces."""
    frame = found.frame
    assert frame is not None
    seen: dict[int, list[int]] = {}
    for scan, tables, restart_interval in jpeg_scan.pair_with_tables(data, found):
        pairs, mcus = jpeg_scan.lay_out(frame, scan)
        if scan.first > 0 and len(scan.components) > 1:
            raise make_damaged("the header of a scan is broken")
        masks = seen.setdefault(scan.components[0], [0] * mcus) if scan.first > 0 else []
        for units, body in jpeg_scan.split_intervals(data, scan, restart_interval or mcus, mcus):
            bits = _Bits(body)
            if scan.first > 0:
                _walk_ac(bits, units, scan, jpeg_scan.find_codes(tables, jpeg_scan.AC | scan.tables[0][1]), masks)
            elif scan.high:
                bits.skip(len(units) * len(pairs))  # one bit for each block, whatever it says
            else:
                _walk_dc(bits, units, [jpeg_scan.find_codes(tables, jpeg_scan.DC | dc) for dc, _ in pairs])
            bits.check_end()


class _Bits:
    """Reads the bits of one interval."""

    def __init__(self, body: bytes) -> None:
        self._end = 8 * len(body)
        self._body = body + bytes(4)
        self._at = 0

    def read(self, count: int) -> int:
        """Return the next ``count`` bits, 16 at most. Behind the end there are zeros."""
        byte = self._at >> 3
        found = int.from_bytes(self._body[byte : byte + 3], "big") << 8 * max(0, byte + 3 - len(self._body))
        found = found >> (24 - (self._at & 7) - count) & ((1 << count) - 1)
        self._at += count
        return found

    def skip(self, count: int) -> None:
        self._at += count

    def read_symbol(self, codes: Codes) -> int:
        """Return the next symbol of a table. Raises Permanent for bits that are no code, or behind the end."""
        found = codes[self.read(16)]
        if found is None or self._at - 16 > self._end:
            raise make_damaged("its pixels cannot be told from its data")
        self._at += found[0] - 16
        return found[1]

    def check_end(self) -> None:
        """Raise Permanent unless fewer than 8 bits are left."""
        if not 0 <= self._end - self._at < 8:
            raise make_damaged("it has more or fewer pixels than its header announces")


def _walk_dc(bits: _Bits, units: range, tables: Sequence[Codes]) -> None:
    for _ in units:
        for codes in tables:
            bits.skip(bits.read_symbol(codes) & 15)


def _walk_ac(bits: _Bits, units: range, scan: Scan, codes: Codes, masks: list[int]) -> None:
    """Read the symbols of blocks. ``masks`` has a bit for each coefficient that an earlier scan made other than 0."""
    band = (2 << scan.last) - (1 << scan.first)
    empty_blocks = 0
    for unit in units:
        known = masks[unit] & band if scan.high else 0
        at = scan.first
        while not empty_blocks and at <= scan.last:
            symbol = bits.read_symbol(codes)
            zeros, size = symbol >> 4, symbol & 15
            if size == 0 and symbol != _SKIP_16:
                empty_blocks = (1 << zeros) + bits.read(zeros)
                break
            if scan.high and size > 1:
                raise make_damaged("its pixels cannot be told from its data")
            at = _skip_zeros(at, zeros, known, bits)
            if at > scan.last:
                raise make_damaged("its pixels cannot be told from its data")
            bits.skip(size)
            if size:
                masks[unit] |= 1 << at
            at += 1
        if empty_blocks:
            bits.skip((known >> at).bit_count())
            empty_blocks -= 1
    if empty_blocks:
        raise make_damaged("it has more or fewer pixels than its header announces")


def _skip_zeros(at: int, zeros: int, known: int, bits: _Bits) -> int:
    """Return the place of the coefficient behind ``zeros`` others that are 0; each known one has a bit."""
    while True:
        if known >> at & 1:
            bits.skip(1)
        elif zeros == 0 or at > 63:
            return at
        else:
            zeros -= 1
        at += 1
