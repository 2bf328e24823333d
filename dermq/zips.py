"""What the web and the unpacker both know of ZIP archives: where the list of entries is, and what is no ZIP archive.

The end of the file is read, and a few leading bytes (PKWARE's APPNOTE.TXT 6.3, sections 4.3.14 to 4.3.16).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dermq import errors

ENCODINGS = {
    "cp932": "Japanese (Shift JIS)",
    "gb18030": "Chinese, simplified (GBK)",
    "big5": "Chinese, traditional (Big5)",
    "cp949": "Korean",
    "cp866": "Cyrillic (DOS, cp866)",
    "cp1251": "Cyrillic (Windows, cp1251)",
    "cp437": "Western (DOS, cp437)",
    "cp850": "Western (DOS, cp850)",
    "cp1252": "Western (Windows, cp1252)",
    "cp852": "Central European (DOS, cp852)",
    "cp1250": "Central European (Windows, cp1250)",
    "cp737": "Greek (DOS, cp737)",
    "cp1253": "Greek (Windows, cp1253)",
    "cp857": "Turkish (DOS, cp857)",
    "cp1254": "Turkish (Windows, cp1254)",
    "cp862": "Hebrew (DOS, cp862)",
    "cp1255": "Hebrew (Windows, cp1255)",
    "cp1256": "Arabic (Windows, cp1256)",
    "cp874": "Thai",
    "mac_roman": "Western (old Macintosh)",
}
"""Encodings of names that are not in Unicode, in the order in which they are preferred if several may be right."""

HEAD_BYTES = 512
"""Leading bytes that show what an archive is."""
_OTHER_ARCHIVES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
)
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04")
"""The begin of an archive, of an empty one, and of two kinds that were meant to be split."""
RECORD_SIGNATURE = b"PK\x01\x02"
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_TAIL_BYTES = 1_000_000
"""The end of the list is looked for in so many bytes at the end of the file; a comment takes at most 65,535 of them."""
_MOST_ENDS = 20_000
"""So many places that look like the end of a list are tried."""
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\x06\x06"


@dataclass(frozen=True)
class Place:
    """Where the list of entries is in a file."""

    begins_at: int
    size: int
    shift: int
    """By how much offsets in the list are too small, because of bytes before the archive."""
    is_split: bool
    """Whether other parts of the archive are in other files."""


def check(file: BinaryIO) -> None:
    """Check that a file is a ZIP archive with its end, whatever stands before or behind it.

    Raises UnsupportedFormat, which says what it is instead.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    place = locate(file)
    other = find_other_archive(head)
    if (place is not None and place.is_split) or (head.startswith(b"PK\x07\x08") and place is None):
        raise _make_error("split_archive", "The content is one part of a split ZIP archive.")
    if place is not None and other is None:
        return
    if other is not None:
        raise _make_error("not_a_zip", f"The content is {other}.")
    if is_zip(head):
        raise _make_error("not_a_zip", "The content begins like a ZIP archive, but its end is missing.")
    raise _make_error("not_a_zip", "The content is not a ZIP archive.")


def is_zip(head: bytes) -> bool:
    """Return whether leading bytes are those of a ZIP archive."""
    return head.startswith(_ZIP_MAGIC)


def find_other_archive(head: bytes) -> str | None:
    """Return what kind of archive other than ZIP leading bytes show, as in ``a RAR archive``; None for no archive."""
    return next((name for at, magic, name in _OTHER_ARCHIVES if head.startswith(magic, at)), None)


def locate(file: BinaryIO) -> Place | None:
    """Return where the list of entries is, or None where no list is found.

    The record of the end is looked for from the last one to the first, because comments may hold its signature.
    """
    length = file.seek(0, 2)
    tail_at = max(0, length - _TAIL_BYTES)
    file.seek(tail_at)
    tail = file.read(_TAIL_BYTES)
    for at in _find_ends(tail):
        _, disk, list_disk, _, _, size, offset, _ = _END.unpack_from(tail, at)
        ends_at = tail_at + at
        if (found := _read_end64(file, ends_at)) is not None:
            ends_at, disk, list_disk, size, offset = found
        is_split = bool(disk or list_disk)
        for begins_at in (ends_at - size, offset):
            if _is_list(file, begins_at, size, ends_at):
                return Place(begins_at, size, begins_at - offset, is_split)
        if is_split and at + _END.size == len(tail):  # the list may begin in another part
            return Place(ends_at, 0, 0, is_split)
    return None


def _find_ends(tail: bytes) -> Iterator[int]:
    at = len(tail)
    for _ in range(_MOST_ENDS):
        at = tail.rfind(_END_SIGNATURE, 0, at)
        if at == -1:
            return
        if at + _END.size <= len(tail):
            yield at


def _is_list(file: BinaryIO, begins_at: int, size: int, ends_at: int) -> bool:
    """Return whether a list of entries can begin here; an empty one has no signature."""
    if begins_at < 0 or begins_at + size > ends_at:
        return False
    file.seek(begins_at)
    return size == 0 or file.read(4) == RECORD_SIGNATURE


def _read_end64(file: BinaryIO, end_at: int) -> tuple[int, int, int, int, int] | None:
    """Return what the end record of ZIP64 says, if there is one: its place, its disks, the list's size and offset."""
    if end_at < _LOCATOR.size + _END64.size:
        return None
    file.seek(end_at - _LOCATOR.size)
    signature, _, offset, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature != _LOCATOR_SIGNATURE:
        return None
    last = end_at - _LOCATOR.size - _END64.size
    for at in (last, offset):
        if at > last:
            continue
        file.seek(at)
        record = _END64.unpack(file.read(_END64.size))
        if record[0] == _END64_SIGNATURE:
            return at, record[4], record[5], record[8], record[9]
    return None


def _make_error(code: str, what: str) -> errors.UnsupportedFormat:
    return errors.UnsupportedFormat(code, f"{what} ZIP archives in one file are accepted.")
