"""Unpacks the entries of a ZIP archive to incoming files, a page at a time; some entries are refused or skipped."""

import contextlib
import struct
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from dermq import arrivals, errors
from dermq.arrivals import Arrival
from dermq.settings import Settings
from dermq.storage import BlobStore

PAGE_ENTRIES = 64
PAGE_SECONDS = 1.0
"""A page ends after ``PAGE_ENTRIES`` or ``PAGE_SECONDS``, whichever comes first."""
MAX_DIRECTORY_BYTES = 32_000_000
"""The limit of the central directory, which is read into memory. No honest archive has a larger one."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Other methods have no limit on the output of one read: a few hundred bytes could take gigabytes of memory."""
_CHUNK_BYTES = 256 * 1024
_ENCRYPTED = 0x1
"""Bit of an entry's flags (APPNOTE 4.4.4)."""
_SKIPPED_FOLDER = "__MACOSX"
_SKIPPED_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass
class EntryPage:
    """The outcome of a few entries in a row, and the position after them."""

    next_entry: int
    unpacked_bytes: int
    entries: int = 0
    arrived: list[Arrival] = field(default_factory=list)
    refused: list[tuple[str, errors.DermqError]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@contextlib.contextmanager
def open_archive(
    blobs: BlobStore, batch_id: uuid.UUID, sha256: str, settings: Settings, progress: Callable[[], None]
) -> Iterator["Entries"]:
    """Open a stored archive; the entries call ``progress`` at every step.

    Raises Permanent when the archive is not a readable ZIP, and Transient when the blob store itself fails a probe.
    """
    with contextlib.ExitStack() as open_files:
        try:
            file = open_files.enter_context(blobs.open(batch_id, sha256))
            archive = open_files.enter_context(_read_directory(file))
        except FileNotFoundError as err:
            blobs.probe()
            raise errors.Permanent("blob_missing", "The stored archive is gone; upload it again.") from err
        except (OSError, errors.Transient) as err:
            blobs.probe()
            raise errors.Permanent(
                "blob_unreadable", f"The stored archive cannot be read ({err}); upload it again."
            ) from err
        yield Entries(archive, blobs, settings, progress)


class Entries:
    """The entries of an open archive, in their order."""

    def __init__(
        self, archive: zipfile.ZipFile, blobs: BlobStore, settings: Settings, progress: Callable[[], None]
    ) -> None:
        self._archive = archive
        self._infos = archive.infolist()
        self._blobs = blobs
        self._settings = settings
        self._progress = progress

    def __len__(self) -> int:
        return len(self._infos)

    def read_page(self, before: EntryPage, files: contextlib.ExitStack) -> EntryPage:
        """Return the page after ``before``. ``files`` removes the incoming files that are not kept when it closes."""
        page = EntryPage(before.next_entry, before.unpacked_bytes)
        until = time.monotonic() + PAGE_SECONDS
        while page.next_entry < len(self) and page.entries < PAGE_ENTRIES and time.monotonic() < until:
            info = self._infos[page.next_entry]
            page.next_entry += 1
            page.entries += 1
            if is_skipped(info):
                page.skipped.append(info.filename)
                continue
            try:
                page.arrived.append(files.enter_context(self._receive(info, page)))
            except errors.Rejected as err:
                page.refused.append((info.filename, err))
            self._progress()
        return page

    def _receive(self, info: zipfile.ZipInfo, page: EntryPage) -> contextlib.AbstractContextManager[Arrival]:
        if info.flag_bits & _ENCRYPTED:
            raise errors.Rejected("encrypted", "The entry is encrypted; only entries without a password are accepted.")
        if info.compress_type not in _COMPRESSIONS:
            raise errors.Rejected(
                "unsupported_compression",
                "The entry's compression method is not accepted; only stored and deflated entries are.",
            )
        if info.file_size > self._settings.max_image_bytes:
            raise arrivals.make_too_large(self._settings)
        return arrivals.receive_file(self._blobs, info.filename, self._unpack(info, page), self._settings)

    def _unpack(self, info: zipfile.ZipInfo, page: EntryPage) -> Iterator[bytes]:
        """Yield one entry in chunks. Raises Rejected when it is damaged or the archive unpacks to too many bytes."""
        most = self._settings.max_archive_unpacked_bytes
        try:
            with self._archive.open(info) as entry:
                while chunk := entry.read(_CHUNK_BYTES):
                    page.unpacked_bytes += len(chunk)
                    if page.unpacked_bytes > most:
                        raise errors.TooLarge(
                            "archive_bomb",
                            f"The archive unpacks to more than the accepted {most:,} bytes.",
                        )
                    self._progress()
                    yield chunk
        except OSError as err:  # a fault of the store, or an entry with a negative offset
            self._blobs.probe()
            raise errors.Rejected("damaged_entry", f"The entry cannot be read: {err}") from err
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error, OverflowError) as err:
            raise errors.Rejected("damaged_entry", f"The entry is damaged: {err}") from err


def is_skipped(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a folder or a file that an operating system added, such as ``.DS_Store``."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    return info.is_dir() or _SKIPPED_FOLDER in path.parts or path.name in _SKIPPED_FILES or path.name.startswith("._")


def _read_directory(file: BinaryIO) -> zipfile.ZipFile:
    """Read the archive's central directory. Raises Permanent when it is damaged or too large for memory."""
    try:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
        if size > MAX_DIRECTORY_BYTES:
            raise errors.Permanent(
                "too_many_entries",
                f"The archive's list of entries has {size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are accepted.",
            )
        file.seek(0)
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as err:
        raise errors.Permanent("bad_archive", f"The archive is not a readable ZIP file: {err}") from err
