"""ZIP archives written byte by byte, with any names, flags, sizes and lies that a program or an attacker may write."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

STORED, DEFLATED = 0, 8
UTF8, ENCRYPTED, DESCRIPTOR = 0x800, 0x1, 0x8
UNIX, DOS = 3, 0
SYMLINK = 0o120777 << 16


@dataclass
class Member:
    """One entry. Fields that are None follow from the others; given ones are written as they are."""

    name: bytes
    content: bytes = b""
    method: int = STORED
    flags: int = 0
    extra: bytes = b""
    local_extra: bytes = b""
    local_name: bytes | None = None
    local_method: int | None = None
    packed: bytes | None = None
    """The packed bytes."""
    size: int | None = None
    compressed: int | None = None
    local_size: int | None = None
    crc: int | None = None
    offset: int | None = None
    made_by: int = DOS
    attributes: int = 0
    comment: bytes = b""
    version: int = 20
    disk: int = 0
    same_place_as_before: bool = False
    """Whether the entry is only listed, and lies where the one before it does."""


def build(
    members: Sequence[Member],
    *,
    before: bytes = b"",
    after: bytes = b"",
    shift_offsets: bool = True,
    comment: bytes = b"",
    count: int | None = None,
    disk: int = 0,
    list_size: int | None = None,
    zip64: bool = False,
) -> bytes:
    """Return an archive of ``members``, with bytes ``before`` and ``after`` it; offsets count the former if told so."""
    body, listed, at = bytearray(before), bytearray(), 0
    for member in members:
        if not member.same_place_as_before:
            at = len(body)
            body += _local(member)
        listed += _record(member, at if shift_offsets else at - len(before))
    begins_at = len(body) if shift_offsets else len(body) - len(before)
    size = len(listed) if list_size is None else list_size
    number = len(members) if count is None else count
    ends = b""
    if zip64:
        end64_at = begins_at + len(listed)
        ends = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number, size, begins_at)
        ends += struct.pack("<4sLQL", b"PK\x06\x07", 0, end64_at, 1)
        begins_at, size, number = 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF
    ends += struct.pack(
        "<4s4H2LH", b"PK\x05\x06", disk, disk, number & 0xFFFF, number & 0xFFFF, size, begins_at, len(comment)
    )
    return bytes(body) + bytes(listed) + ends + comment + after


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def field(kind: int, value: bytes) -> bytes:
    """Return one extra field."""
    return struct.pack("<2H", kind, len(value)) + value


def unicode_path(raw_name: bytes, name: str, *, crc: int | None = None) -> bytes:
    """Return Info-ZIP's extra field with a name in UTF-8."""
    checksum = zlib.crc32(raw_name) if crc is None else crc
    return field(0x7075, struct.pack("<BL", 1, checksum) + name.encode())


def _packed(member: Member) -> bytes:
    if member.packed is not None:
        return member.packed
    return deflated(member.content) if member.method == DEFLATED else member.content


def _crc(member: Member) -> int:
    return zlib.crc32(member.content) if member.crc is None else member.crc


def _local(member: Member) -> bytes:
    packed, name = _packed(member), member.name if member.local_name is None else member.local_name
    method = member.method if member.local_method is None else member.local_method
    size = len(member.content) if member.local_size is None else member.local_size
    crc, compressed = _crc(member), len(packed)
    descriptor = b""
    if member.flags & DESCRIPTOR:
        descriptor = struct.pack("<4s3L", b"PK\x07\x08", crc, compressed, size)
        crc = compressed = size = 0
    head = struct.pack(
        "<4s5H3L2H",
        b"PK\x03\x04",
        member.version,
        member.flags,
        method,
        0,
        0x21,
        crc,
        compressed,
        size,
        len(name),
        len(member.local_extra),
    )
    return head + name + member.local_extra + packed + descriptor


def _record(member: Member, at: int) -> bytes:
    packed = _packed(member)
    return (
        struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            member.made_by << 8 | 20,
            member.version,
            member.flags,
            member.method,
            0,
            0x21,
            _crc(member),
            len(packed) if member.compressed is None else member.compressed,
            len(member.content) if member.size is None else member.size,
            len(member.name),
            len(member.extra),
            len(member.comment),
            member.disk,
            0,
            member.attributes,
            at if member.offset is None else member.offset,
        )
        + member.name
        + member.extra
        + member.comment
    )
