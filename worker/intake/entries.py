"""Unpacks the entries of a ZIP archive to incoming files, a page at a time; some entries are refused or skipped."""

import contextlib
import logging
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import inflate64

from dermq import arrivals, errors, storage
from dermq.arrivals import Arrival
from dermq.settings import Settings
from dermq.storage import BlobStore
from worker.intake import directory, names
from worker.intake.directory import LOCAL_HEADER_BYTES, Directory, Entry

log = logging.getLogger(__name__)

PAGE_IMAGES = 64
PAGE_ENTRIES = 1_000
PAGE_SECONDS = 1.0
"""A page ends after this many images, entries or seconds, whichever comes first."""
LEAST_IMAGES_LISTED = 1_000
"""An archive may always list this many files that could be images, even if the batch has less room."""
ENTRIES_PER_IMAGE = 10
"""An archive may list so many times more entries than files that could be images."""
_STORED, _DEFLATED, _DEFLATED64, _AES = 0, 8, 9, 99
_METHODS = {12: "bzip2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 95: "XZ", 96: "JPEG", 98: "PPMd"}
"""Compression methods that are not accepted, by name (APPNOTE 4.4.5). Not all of them can bound the output of one read:
a few hundred bytes could take gigabytes of memory."""
_CHUNK_BYTES = 256 * 1024
_CHUNK64_BYTES = 64
"""Bytes that are given to the unpacker of Deflate64 at one time. It has no limit for what it gives back, which is at
most 2 MB for so many bytes."""
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Bits of an entry's flags that mean encryption (APPNOTE 4.4.4)."""
_HAS_DESCRIPTOR = 0x8
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)


@dataclass
class EntryPage:
    """The outcome of a few entries in a row, and the position after them."""

    next_entry: int
    entries: int = 0
    arrived: list[Arrival] = field(default_factory=list)
    refused: list[tuple[str, errors.DermqError]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@contextlib.contextmanager
def open_archive(
    blobs: BlobStore,
    batch_id: uuid.UUID,
    sha256: str,
    encoding: str | None,
    settings: Settings,
    progress: Callable[[], None],
) -> Iterator["Entries"]:
    """Open a stored archive, whose names are in ``encoding`` if given; the entries call ``progress`` at every step.

    Raises Permanent when the archive is not a readable ZIP or is refused as a whole, and Transient when the blob store
    itself fails a probe.
    """
    with contextlib.ExitStack() as open_files:
        try:
            file = open_files.enter_context(blobs.open(batch_id, sha256))
            listed = directory.read(file, encoding)
        except FileNotFoundError as err:
            blobs.probe()
            raise errors.Permanent("blob_missing", "The stored archive is gone; upload it again.") from err
        except (OSError, errors.Transient) as err:
            blobs.probe()
            raise errors.Permanent(
                "blob_unreadable", f"The stored archive cannot be read ({err}); upload it again."
            ) from err
        check_list(listed, settings)
        yield Entries(file, listed, blobs, settings, progress)


def check_list(listed: Directory, settings: Settings) -> None:
    """Raise Permanent for an archive that would unpack the same bytes twice, or too many bytes."""
    if listed.overlaps():
        raise errors.Permanent(
            "overlapping_entries", "Entries of the archive share the same bytes; nothing of it was unpacked."
        )
    most = settings.max_archive_unpacked_bytes
    declared = sum(entry.bytes for entry in listed.entries if not entry.damage)
    if declared > most:
        raise errors.Permanent(
            "archive_bomb",
            f"The archive says that it unpacks to {declared:,} bytes; at most {most:,} are accepted. "
            "Nothing of it was unpacked.",
        )


class Entries:
    """The entries of an open archive, in their order."""

    def __init__(
        self,
        file: BinaryIO,
        listed: Directory,
        blobs: BlobStore,
        settings: Settings,
        progress: Callable[[], None],
    ) -> None:
        self._file = file
        self._listed = listed
        self._blobs = blobs
        self._settings = settings
        self._progress = progress

    def __len__(self) -> int:
        return len(self._listed.entries)

    @property
    def encoding(self) -> str | None:
        """The encoding in which names were decoded that are not in Unicode; None when all are."""
        return self._listed.encoding

    def check_count(self, room: int) -> None:
        """Raise Permanent when the archive lists far more than a batch with ``room`` for so many images can take."""
        most = max(room, LEAST_IMAGES_LISTED)
        images = sum(could_be_image(entry) for entry in self._listed.entries)
        if images > most:
            raise errors.Permanent(
                "too_many_entries",
                f"The archive has {images:,} files that could be images; the batch accepts {most:,}. "
                "Nothing of it was unpacked.",
            )
        if len(self) > most * ENTRIES_PER_IMAGE:
            raise errors.Permanent(
                "too_many_entries",
                f"The archive has {len(self):,} entries; at most {most * ENTRIES_PER_IMAGE:,} are accepted. "
                "Nothing of it was unpacked.",
            )

    def read_page(self, next_entry: int, files: contextlib.ExitStack) -> EntryPage:
        """Return the page that begins with ``next_entry``. ``files`` removes the incoming files that are not kept.

        Raises OutOfSpace when there is no space for its first entry; a page ends before a later one without space.
        """
        page = EntryPage(next_entry)
        until = time.monotonic() + PAGE_SECONDS
        while (
            page.next_entry < len(self)
            and page.entries < PAGE_ENTRIES
            and len(page.arrived) < PAGE_IMAGES
            and time.monotonic() < until
        ):
            try:
                self._take(self._listed.entries[page.next_entry], page, files)
            except errors.OutOfSpace:
                if page.entries == 0:
                    raise
                break
            page.next_entry += 1
            page.entries += 1
            self._progress()
        return page

    def _take(self, entry: Entry, page: EntryPage, files: contextlib.ExitStack) -> None:
        """Add one entry to a page. Raises only Transient: whatever else an entry raises refuses this entry."""
        if entry.is_folder or names.is_leftover(entry.name):
            page.skipped.append(arrivals.escape_controls(entry.name))
            return
        try:
            page.arrived.append(files.enter_context(self._receive(entry)))
        except errors.Rejected as err:
            if names.is_sidecar(entry.name):
                page.skipped.append(arrivals.escape_controls(entry.name))
            else:
                page.refused.append((entry.name, err))
        except errors.Transient:
            raise
        except Exception as err:  # hostile bytes must not end the worker, whatever a library makes of them
            log.warning("an entry is refused, because reading it raised an error", exc_info=True)
            page.refused.append((entry.name, _make_damaged(f"it cannot be read ({type(err).__name__})")))

    def _receive(self, entry: Entry) -> contextlib.AbstractContextManager[Arrival]:
        self._check(entry)
        return arrivals.receive_file(self._blobs, entry.name, self._unpack(entry), self._settings)

    def _check(self, entry: Entry) -> None:
        """Refuse what the list alone shows to be unacceptable. Raises Rejected, and OutOfSpace when it has no room."""
        if entry.damage:
            raise _make_damaged(entry.damage)
        if entry.is_special:
            raise errors.Rejected("not_a_file", "The entry is a link or a device; only files are accepted.")
        if entry.flags & _ENCRYPTED or entry.method == _AES:
            raise _make_encrypted(entry.method)
        if entry.method not in (_STORED, _DEFLATED, _DEFLATED64):
            method = _METHODS.get(entry.method, f"method {entry.method}")
            raise errors.Rejected(
                "unsupported_compression",
                f"The entry is compressed with {method}; Deflate, Deflate64 and no compression are accepted.",
            )
        if entry.bytes > self._settings.max_image_bytes:
            raise arrivals.make_too_large(self._settings)
        if entry.compressed_bytes > _limit_packed_bytes(entry):
            raise _make_damaged("it has more bytes than any packed file of its size")
        storage.check_room(self._blobs, entry.bytes)

    def _unpack(self, entry: Entry) -> Iterator[bytes]:
        """Yield one entry in chunks. Raises Rejected when it is damaged or is not what the list says."""
        try:
            left = _Rest(self._file, self._find_content(entry), entry.compressed_bytes)
            yield from self._check_content(entry, _UNPACKERS[entry.method](left))
        except OSError as err:  # a fault of the store
            self._blobs.probe()
            raise errors.Rejected("damaged_entry", f"The entry cannot be read: {err}") from err
        except (zlib.error, ValueError) as err:  # inflate64 raises ValueError
            raise _make_damaged(f"it cannot be unpacked ({err})") from err

    def _check_content(self, entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` and compare them with the size and the checksum that the list has of the entry."""
        size = checksum = 0
        for chunk in chunks:
            size += len(chunk)
            if size > entry.bytes:
                raise _make_damaged(f"it has more than the {entry.bytes:,} bytes that the archive says")
            checksum = zlib.crc32(chunk, checksum)
            self._progress()
            yield chunk
        if size != entry.bytes or checksum != entry.crc:
            raise _make_damaged("its bytes are not those that were packed")

    def _find_content(self, entry: Entry) -> int:
        """Return where the bytes of an entry begin. Raises Rejected when its own header contradicts the list."""
        self._file.seek(entry.offset)
        header = self._file.read(LOCAL_HEADER_BYTES)
        if len(header) < LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            raise _make_damaged("its own header is missing")
        _, _, flags, method, _, _, _, compressed, size, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        raw_name = self._file.read(name_bytes)
        if flags & _ENCRYPTED:
            raise _make_encrypted(method)
        if raw_name != entry.raw_name:
            extra = self._file.read(extra_bytes)
            if names.decode(raw_name, flags, extra, self.encoding or "") != entry.name:
                raise _make_contradicting("name")
        if method != entry.method:
            raise _make_contradicting("compression")
        if not flags & _HAS_DESCRIPTOR and (
            size not in (*_UNKNOWN_SIZES, entry.bytes) or compressed not in (*_UNKNOWN_SIZES, entry.compressed_bytes)
        ):
            raise _make_contradicting("size")
        begins_at: int = entry.offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        if begins_at + entry.compressed_bytes > self._listed.begins_at:
            raise _make_damaged("it lies outside of the archive")
        return begins_at


class _Rest:
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
                raise _make_damaged("its end is missing")
            self._left -= len(chunk)
            yield chunk


def could_be_image(entry: Entry) -> bool:
    """Return whether an entry is neither a folder nor a file that labs and systems put beside images."""
    return not (entry.is_folder or names.is_leftover(entry.name) or names.is_sidecar(entry.name))


def _inflate(packed: _Rest) -> Iterator[bytes]:
    """Yield what packed bytes unpack to, in chunks of bounded size."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed.read_chunks():
        while chunk and not inflater.eof:
            yield inflater.decompress(chunk, _CHUNK_BYTES)
            chunk = inflater.unconsumed_tail
    while not inflater.eof and (chunk := inflater.decompress(b"", _CHUNK_BYTES)):
        yield chunk
    if not inflater.eof:
        raise _make_damaged("its end is missing")


def _inflate64(packed: _Rest) -> Iterator[bytes]:
    """Yield what bytes packed with Deflate64 unpack to, as Windows packs files over 2 GB."""
    inflater = inflate64.Inflater()
    for chunk in packed.read_chunks(_CHUNK64_BYTES):
        if unpacked := inflater.inflate(chunk):
            yield unpacked
        if inflater.eof:
            return
    raise _make_damaged("its end is missing")


_UNPACKERS: dict[int, Callable[[_Rest], Iterator[bytes]]] = {
    _STORED: _Rest.read_chunks,
    _DEFLATED: _inflate,
    _DEFLATED64: _inflate64,
}


def _limit_packed_bytes(entry: Entry) -> int:
    """Return the most packed bytes that an entry may have: a packer that gains nothing adds a little.

    A deflated file may hold any number of blocks without content, over which an unpacker would sit for minutes.
    """
    return entry.bytes if entry.method == _STORED else 2 * entry.bytes + 65_536


def _make_encrypted(method: int) -> errors.Rejected:
    how = "AES" if method == _AES else "ZipCrypto or another method"
    return errors.Rejected(
        "encrypted", f"The entry is encrypted with {how}; only entries without a password are accepted."
    )


def _make_damaged(why: str) -> errors.Rejected:
    return errors.Rejected("damaged_entry", f"The entry is damaged: {why}.")


def _make_contradicting(what: str) -> errors.Rejected:
    return _make_damaged(f"its own header and the archive's list give it another {what}")
