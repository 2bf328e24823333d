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

from dermq import arrivals, errors, models, storage
from dermq.arrivals import Arrival
from dermq.settings import Settings
from dermq.storage import BlobStore
from worker.intake import directory, names, packing
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
    if listed.has_overlaps():
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
            page.skipped.append(_shorten(entry.name))
            return
        try:
            page.arrived.append(files.enter_context(self._receive(entry)))
        except errors.Rejected as err:
            if names.is_sidecar(entry.name):
                page.skipped.append(_shorten(entry.name))
            else:
                page.refused.append((entry.name, err))
        except errors.Transient:
            raise
        except Exception as err:  # hostile bytes must not end the worker, whatever a library makes of them
            log.warning("an entry is refused, because reading it raised an error", exc_info=True)
            page.refused.append((entry.name, packing.make_damaged(f"it cannot be read ({type(err).__name__})")))

    def _receive(self, entry: Entry) -> contextlib.AbstractContextManager[Arrival]:
        self._check(entry)
        return arrivals.receive_file(self._blobs, entry.name, self._unpack(entry), self._settings)

    def _check(self, entry: Entry) -> None:
        """Refuse what the list alone shows to be unacceptable. Raises Rejected, and OutOfSpace when it has no room."""
        if entry.damage:
            raise packing.make_damaged(entry.damage)
        if entry.is_special:
            raise errors.Rejected("not_a_file", "The entry is a link or a device; only files are accepted.")
        if entry.flags & _ENCRYPTED or entry.method == packing.AES:
            raise _make_encrypted(entry.method)
        if entry.method not in packing.UNPACKERS:
            method = packing.METHODS.get(entry.method, f"method {entry.method}")
            raise errors.Rejected(
                "unsupported_compression",
                f"The entry is compressed with {method}; Deflate, Deflate64 and no compression are accepted.",
            )
        if entry.bytes > self._settings.max_image_bytes:
            raise arrivals.make_too_large(self._settings)
        if entry.compressed_bytes > packing.limit_packed_bytes(entry):
            raise packing.make_damaged("it has more bytes than any packed file of its size")
        storage.check_room(self._blobs, entry.bytes)

    def _unpack(self, entry: Entry) -> Iterator[bytes]:
        """Yield one entry in chunks. Raises Rejected when it is damaged or is not what the list says."""
        try:
            left = packing.Rest(self._file, self._find_content(entry), entry.compressed_bytes)
            yield from self._check_content(entry, packing.UNPACKERS[entry.method](left))
        except OSError as err:  # a fault of the store
            self._blobs.probe()
            raise errors.Rejected("damaged_entry", f"The entry cannot be read: {err}") from err
        except (zlib.error, ValueError) as err:  # inflate64 raises ValueError
            raise packing.make_damaged(f"it cannot be unpacked ({err})") from err

    def _check_content(self, entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` and compare them with the size and the checksum that the list has of the entry."""
        size = checksum = 0
        for chunk in chunks:
            size += len(chunk)
            if size > entry.bytes:
                raise packing.make_damaged(f"it has more than the {entry.bytes:,} bytes that the archive says")
            checksum = zlib.crc32(chunk, checksum)
            self._progress()
            yield chunk
        if size != entry.bytes or checksum != entry.crc:
            raise packing.make_damaged("its bytes are not those that were packed")

    def _find_content(self, entry: Entry) -> int:
        """Return where the bytes of an entry begin. Raises Rejected when its own header contradicts the list."""
        self._file.seek(entry.offset)
        header = self._file.read(LOCAL_HEADER_BYTES)
        if len(header) < LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            raise packing.make_damaged("its own header is missing")
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
            raise packing.make_damaged("it lies outside of the archive")
        return begins_at


def _shorten(name: str) -> str:
    """Return a name to be shown; a ZIP may hold names of 64 kB."""
    shown = arrivals.escape_controls(name[: models.NAME_LENGTH])[: models.NAME_LENGTH]
    return f"{shown[:-1]}…" if len(name) > models.NAME_LENGTH else shown


def could_be_image(entry: Entry) -> bool:
    """Return whether an entry is neither a folder nor a file that labs and systems put beside images."""
    return not (entry.is_folder or names.is_leftover(entry.name) or names.is_sidecar(entry.name))


def _make_encrypted(method: int) -> errors.Rejected:
    how = "AES" if method == packing.AES else "ZipCrypto or another method"
    return errors.Rejected(
        "encrypted", f"The entry is encrypted with {how}; only entries without a password are accepted."
    )


def _make_contradicting(what: str) -> errors.Rejected:
    return packing.make_damaged(f"its own header and the archive's list give it another {what}")
