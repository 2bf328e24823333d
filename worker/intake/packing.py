"""How the bytes of a ZIP entry are packed (APPNOTE.TXT 6.3, section 4.4.5); they are unpacked in bounded chunks."""

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import inflate64

from dermq import errors
from worker.intake.directory import Entry

_STORED, _DEFLATED, _DEFLATED64, AES = 0, 8, 9, 99
METHODS = {12: "bzip2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 95: "XZ", 96: "JPEG", 98: "PPMd"}
"""Compression methods that are not accepted, by name (APPNOTE 4.4.5). Not all of them can bound the output of one read:
a few hundred bytes could take gigabytes of memory."""
_CHUNK_BYTES = 256 * 1024
_CHUNK64_BYTES = 64
"""Bytes that are given to the unpacker of Deflate64 at one time. It has no limit for what it gives back, which is at
most 2 MB for so many bytes."""


class Rest:
    """The packed bytes of an entry that were not read yet."""

    def __init__(self, file: BinaryIO, at: int, left: int) -> None:
        file.seek(at)
        self._file = file
        self._left = left

    def read_chunks(self, most_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the rest in chunks of ``most_bytes``. Raises Rejected when the file ends before it."""
        while self._left:
            chunk = self._file.read(min(self._left, most_bytes))
            if not chunk:
                raise make_damaged("its end is missing")
            self._left -= len(chunk)
            yield chunk


def _inflate(packed: Rest) -> Iterator[bytes]:
    """Yield what packed bytes unpack to, in chunks of bounded size."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed.read_chunks():
        while chunk and not inflater.eof:
            yield inflater.decompress(chunk, _CHUNK_BYTES)
            chunk = inflater.unconsumed_tail
    while not inflater.eof and (chunk := inflater.decompress(b"", _CHUNK_BYTES)):
        yield chunk
    if not inflater.eof:
        raise make_damaged("its end is missing")


def _inflate64(packed: Rest) -> Iterator[bytes]:
    """Yield what bytes packed with Deflate64 unpack to, as Windows packs files over 2 GB."""
    inflater = inflate64.Inflater()
    for chunk in packed.read_chunks(_CHUNK64_BYTES):
        if unpacked := inflater.inflate(chunk):
            yield unpacked
        if inflater.eof:
            return
    raise make_damaged("its end is missing")


UNPACKERS: dict[int, Callable[[Rest], Iterator[bytes]]] = {
    _STORED: Rest.read_chunks,
    _DEFLATED: _inflate,
    _DEFLATED64: _inflate64,
}
"""How each accepted method is unpacked."""


def limit_packed_bytes(entry: Entry) -> int:
    """Return the most packed bytes that an entry may have: a packer that gains nothing adds a little.

    A deflated file may hold any number of blocks without content, over which an unpacker would sit for minutes.
    """
    return entry.bytes if entry.method == _STORED else 2 * entry.bytes + 65_536


def make_damaged(why: str) -> errors.Rejected:
    """Return the error for an entry whose bytes are not those that were packed."""
    return errors.Rejected("damaged_entry", f"The entry is damaged: {why}.")
