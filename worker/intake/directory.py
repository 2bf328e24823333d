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

from dermq import errors, zips
from worker.intake import names

MAX_DIRECTORY_BYTES = 32_000_000
"""The limit of the list of entries, which is read into memory. Archives that labs send have smaller ones."""

_RECORD = struct.Struct("<4s6H3L5H2L")
LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA = 0x0001
_IN_ZIP64 = 0xFFFFFFFF
"""A size or offset that stands in the extra field of ZIP64 instead."""
_UNIX = 3
_FILE_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000
_DOS_FOLDER = 0x10

_Record = tuple[tuple[int, ...], bytes, bytes]
"""The fixed fields of an entry, its name and its extra fields."""


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
    is_folder: bool
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
    encoding: str | None
    """The encoding of names that are not in Unicode; None when all are."""

    def has_overlaps(self) -> bool:
        """Return whether two entries share bytes, as in bombs that unpack the same bytes many times."""
        spans = sorted(
            (entry.offset, entry.offset + LOCAL_HEADER_BYTES + entry.compressed_bytes)
            for entry in self.entries
            if not entry.damage
        )
        return any(start < end for (_, end), (start, _) in pairwise(spans))


def read(file: BinaryIO, encoding: str | None = None) -> Directory:
    """Read the list of an archive; names that are not in Unicode are in ``encoding``, or in the one that is found.

    Raises Permanent when the list cannot be followed or is too large for memory.
    """
    place = zips.locate(file)
    if place is None:
        raise _make_bad("is not found")
    if place.is_split:
        raise errors.Permanent(
            "split_archive", "The archive is one part of a split archive; archives in one file are accepted."
        )
    if place.size > MAX_DIRECTORY_BYTES:
        raise errors.Permanent(
            "too_many_entries",
            f"The archive's list of entries has {place.size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are accepted.",
        )
    file.seek(place.begins_at)
    records = list(_read_records(file.read(place.size)))
    unclear = [raw for record, raw, extra in records if names.find_unicode(raw, record[3], extra) is None]
    if not unclear:
        encoding = None
    elif encoding is None:
        encoding = names.choose_encoding(unclear)
    entries = tuple(_make_entry(record, place, encoding) for record in records)
    return Directory(entries, place.begins_at, encoding)


def _read_records(listed: bytes) -> Iterator[_Record]:
    at = 0
    while at < len(listed):
        if len(listed) - at < _RECORD.size or not listed.startswith(zips.RECORD_SIGNATURE, at):
            raise _make_bad("is damaged")
        record = _RECORD.unpack_from(listed, at)
        name_at = at + _RECORD.size
        extra_at = name_at + record[10]
        comment_at = extra_at + record[11]
        at = comment_at + record[12]
        if at > len(listed):
            raise _make_bad("is cut")
        yield record, listed[name_at:extra_at], listed[extra_at:comment_at]


def _make_entry(read_record: _Record, place: zips.Place, encoding: str | None) -> Entry:
    record, raw_name, extra = read_record
    _, made_by, _, flags, method, _, _, crc, compressed, size, _, _, _, disk, _, attributes, offset = record
    damage = "it lies on another disk" if disk not in (0, 0xFFFF) else ""
    if _IN_ZIP64 in (size, compressed, offset):
        found = _read_zip64(extra, size, compressed, offset)
        if found is None:
            damage = "its sizes are missing"
        else:
            size, compressed, offset = found
    offset += place.shift
    if not damage and not 0 <= offset <= place.begins_at - LOCAL_HEADER_BYTES - compressed:
        damage = "it lies outside of the archive"
    name = names.decode(raw_name, flags, extra, encoding or "")
    file_type = attributes >> 16 & _FILE_TYPE if made_by >> 8 == _UNIX else 0
    is_folder = names.is_folder(name) or (size == 0 and (file_type == _FOLDER or bool(attributes & _DOS_FOLDER)))
    is_special = file_type not in (0, _REGULAR, _FOLDER)
    return Entry(raw_name, name, flags, method, crc, compressed, size, offset, is_folder, is_special, damage)


def _read_zip64(extra: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int] | None:
    """Return sizes and offset, of which the extra field of ZIP64 has those that are too large; None if it lacks one."""
    values = names.find_extra(extra, _ZIP64_EXTRA)
    found, at = [], 0
    for value in (size, compressed, offset):
        if value == _IN_ZIP64:
            if at + 8 > len(values):
                return None
            [value] = struct.unpack_from("<Q", values, at)
            at += 8
        found.append(value)
    return found[0], found[1], found[2]


def _make_bad(what: str) -> errors.Permanent:
    return errors.Permanent("bad_archive", f"The archive is not a readable ZIP file: its list of entries {what}.")
