"""The list of entries at the end of a ZIP archive (PKWARE's APPNOTE.TXT 6.3), read without trusting it.

``zipfile`` gives up the whole archive when one entry has a name, an extra field or a version that it does not know, and
it does not say which bytes a name had. Here, what is wrong with one entry is noted on this entry, and an archive fails
only when its list cannot be followed (docs/adr/0016).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from dermq import errors

MAX_DIRECTORY_BYTES = 32_000_000
"""The limit of the list of entries, which is read into memory. No honest archive has a larger one."""

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_MAX_COMMENT_BYTES = 65_535
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\x06\x06"
_RECORD = struct.Struct("<4s6H3L5H2L")
_RECORD_SIGNATURE = b"PK\x01\x02"
LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA = 0x0001
_IN_ZIP64 = 0xFFFFFFFF
"""A size or offset that stands in the extra field of ZIP64 instead."""
_UNIX = 3
_FILE_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000
_UTF8_NAME = 0x800


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as the list describes it."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    compressed_bytes: int
    bytes: int
    """Its size when unpacked."""
    offset: int
    """Where its own header begins in the file."""
    is_special: bool
    """Whether it is a symbolic link or a device instead of a file or folder."""
    damage: str = ""
    """What is wrong with it in the list; empty when nothing is."""


@dataclass(frozen=True)
class Directory:
    """The entries of an archive, in their order."""

    entries: tuple[Entry, ...]
    begins_at: int
    """Where the list begins in the file. Every entry ends before it."""

    def overlaps(self) -> bool:
        """Return whether two entries share bytes, as in bombs that unpack the same bytes many times."""
        spans = sorted(
            (entry.offset, entry.offset + LOCAL_HEADER_BYTES + entry.compressed_bytes)
            for entry in self.entries
            if not entry.damage
        )
        return any(start < end for (_, end), (start, _) in pairwise(spans))


def read(file: BinaryIO) -> Directory:
    """Read the list of an archive. Raises Permanent when it cannot be followed or is too large for memory."""
    begins_at, size, shift = _locate(file)
    if size > MAX_DIRECTORY_BYTES:
        raise errors.Permanent(
            "too_many_entries",
            f"The archive's list of entries has {size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are accepted.",
        )
    file.seek(begins_at)
    return Directory(tuple(_read_entries(file.read(size), begins_at, shift)), begins_at)


def _locate(file: BinaryIO) -> tuple[int, int, int]:
    """Return where the list begins, its bytes, and by how much all offsets are shifted by bytes before the archive.

    The record of the end is looked for from the last one to the first, because comments may hold its signature.
    """
    length = file.seek(0, 2)
    tail_at = max(0, length - _END.size - _MAX_COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(_END_SIGNATURE, 0, at)) != -1:
        if at + _END.size > len(tail):
            continue
        _, disk, list_disk, _, _, size, offset, _ = _END.unpack_from(tail, at)
        ends_at = tail_at + at
        if (found := _read_end64(file, ends_at)) is not None:
            ends_at, disk, list_disk, size, offset = found
        for begins_at in (ends_at - size, offset):
            if _is_list(file, begins_at, size, ends_at):
                if disk or list_disk:
                    raise errors.Permanent(
                        "split_archive",
                        "The archive is one part of a split archive; archives in one file are accepted.",
                    )
                return begins_at, size, begins_at - offset
    raise errors.Permanent("bad_archive", "The archive is not a readable ZIP file: its list of entries is not found.")


def _is_list(file: BinaryIO, begins_at: int, size: int, ends_at: int) -> bool:
    """Return whether a list of entries can begin here; an empty one has no signature."""
    if begins_at < 0 or begins_at + size > ends_at:
        return False
    file.seek(begins_at)
    return size == 0 or file.read(4) == _RECORD_SIGNATURE


def _read_end64(file: BinaryIO, end_at: int) -> tuple[int, int, int, int, int] | None:
    """Return what the end record of ZIP64 says, if there is one: its place, its disks, the list's size and offset."""
    if end_at < _LOCATOR.size:
        return None
    file.seek(end_at - _LOCATOR.size)
    signature, _, offset, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature != _LOCATOR_SIGNATURE:
        return None
    for at in (end_at - _LOCATOR.size - _END64.size, offset):
        if not 0 <= at <= end_at - _LOCATOR.size - _END64.size:
            continue
        file.seek(at)
        record = _END64.unpack(file.read(_END64.size))
        if record[0] == _END64_SIGNATURE:
            return at, record[4], record[5], record[8], record[9]
    return None


def _read_entries(listed: bytes, begins_at: int, shift: int) -> Iterator[Entry]:
    at = 0
    while at < len(listed):
        if len(listed) - at < _RECORD.size or not listed.startswith(_RECORD_SIGNATURE, at):
            raise errors.Permanent(
                "bad_archive", "The archive is not a readable ZIP file: its list of entries is damaged."
            )
        record = _RECORD.unpack_from(listed, at)
        name_at = at + _RECORD.size
        extra_at = name_at + record[10]
        comment_at = extra_at + record[11]
        at = comment_at + record[12]
        if at > len(listed):
            raise errors.Permanent("bad_archive", "The archive is not a readable ZIP file: its list of entries is cut.")
        yield _read_entry(record, listed[name_at:extra_at], listed[extra_at:comment_at], begins_at, shift)


def _read_entry(record: tuple[int, ...], raw_name: bytes, extra: bytes, begins_at: int, shift: int) -> Entry:
    _, made_by, _, flags, method, _, _, crc, compressed, size, _, _, _, disk, _, attributes, offset = record
    damage = "it lies on another disk" if disk not in (0, 0xFFFF) else ""
    if _IN_ZIP64 in (size, compressed, offset):
        found = _read_zip64(extra, size, compressed, offset)
        if found is None:
            damage = "its sizes are missing"
        else:
            size, compressed, offset = found
    offset += shift
    if not damage and not 0 <= offset <= begins_at - LOCAL_HEADER_BYTES - compressed:
        damage = "it lies outside of the archive"
    file_type = attributes >> 16 & _FILE_TYPE if made_by >> 8 == _UNIX else 0
    is_special = file_type not in (0, _REGULAR, _FOLDER)
    return Entry(
        raw_name, _decode_name(raw_name, flags), flags, method, crc, compressed, size, offset, is_special, damage
    )


def _read_zip64(extra: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int] | None:
    """Return sizes and offset, of which the extra field of ZIP64 has those that are too large; None if it lacks one."""
    values = _find_extra(extra, _ZIP64_EXTRA)
    found, at = [], 0
    for value in (size, compressed, offset):
        if value == _IN_ZIP64:
            if at + 8 > len(values):
                return None
            [value] = struct.unpack_from("<Q", values, at)
            at += 8
        found.append(value)
    return found[0], found[1], found[2]


def _find_extra(extra: bytes, wanted: int) -> bytes:
    """Return the value of one extra field; empty when there is none, or when the fields cannot be followed."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _decode_name(raw_name: bytes, flags: int) -> str:
    """Decode a name as UTF-8, which is declared or can be seen, or as the code page of the first ZIP program."""
    try:
        return raw_name.decode()
    except UnicodeDecodeError:
        return raw_name.decode("cp437")
