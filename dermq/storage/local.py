"""Where the bytes of images and archives are kept: ``{batch}/{sha256}`` in a folder on this machine.

Equal files of one batch are stored once. Nothing is shared between batches and nothing is reference-counted:
deleting a batch removes its folder. Thumbnails lie beside their image as ``{sha256}.thumbnail``.
"""

import builtins
import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from dermq import errors

THUMBNAIL = ".thumbnail"
_INCOMING = "incoming"
_MARKER = ".dermq"
"""Lies in every store that was ever put into; a folder without it is a storage that is not mounted."""


class Incoming:
    """A file on its way in: written here first, hashed as it comes, put in its place only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``. Raises OutOfSpace when the disk is full."""
        with translated():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def finish(self) -> None:
        """Make the bytes durable and close the file. Raises OutOfSpace when the disk is full."""
        with translated():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def discard(self) -> None:
        """Close and remove the file if it has not been put in its place."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class Blobs:
    """A blob store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begun(self) -> bool:
        """Whether this is a store, and not the empty folder that one is mounted over."""
        return (self.root / _MARKER).is_file()

    def begin(self) -> None:
        """Make this folder a store; to be called before it holds its first file, and never again."""
        with translated():
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _MARKER).touch()

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new incoming file, removed at the end of the block unless it was put in its place."""
        folder = self.root / _INCOMING
        with translated():
            folder.mkdir(parents=True, exist_ok=True)
            file = Incoming(folder / uuid.uuid4().hex)
        try:
            yield file
        finally:
            file.discard()

    def put(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        """Move finished incoming files to their places, durably. Safe to do twice.

        Raises Transient where no store was begun: on a disk that is not mounted, files would be lost.
        """
        folder = self.root / str(batch)
        with translated():
            self._expect_begun()
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # moved by an earlier run of the same transaction
                    file.path.rename(folder / file.sha256)
                (folder / file.sha256).stat()  # and not collected since as an orphan
            _sync(folder)
            if new:
                _sync(self.root)

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: bytes) -> None:
        """Keep the thumbnail of an image. It can be made again, so it is not made durable."""
        with translated(), self.incoming() as file:
            file.write(jpeg)
            file._file.close()
            # The folder is not made here: a thumbnail must not bring back a batch that was deleted meanwhile.
            with contextlib.suppress(FileNotFoundError):
                file.path.rename(self._path(batch, sha256 + THUMBNAIL))

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError, or Transient when the store fails."""
        with translated(missing=True):
            return self._path(batch, name).open("rb")

    def exists(self, batch: uuid.UUID, name: str) -> bool:
        return self._path(batch, name).is_file()

    def delete(self, batch: uuid.UUID, name: str | None = None) -> None:
        """Delete one blob of a batch, or all of them. Safe to do twice."""
        with translated():
            if name is None:
                shutil.rmtree(self.root / str(batch), ignore_errors=True)
            else:
                self._path(batch, name).unlink(missing_ok=True)

    def list(self, batch: uuid.UUID, *, older_than_seconds: float | None = None) -> list[str]:
        """The names of a batch's blobs, or of those that were last changed longer ago than this."""
        with translated():
            return sorted(path.name for path in _within(self.root / str(batch), older_than_seconds))

    def batches(self, *, older_than_seconds: float) -> builtins.list[uuid.UUID]:
        """The batches whose folder was last changed longer ago than this."""
        found = []
        for path in _within(self.root, older_than_seconds):
            with contextlib.suppress(ValueError):
                found.append(uuid.UUID(path.name))
        return found

    def probe(self) -> None:
        """Raise Transient unless the store is there and gives back what it takes."""
        with translated(), self.incoming() as file:
            file.write(b"probe")
            file.finish()
            self._expect_begun()
            if file.path.read_bytes() != b"probe":
                raise errors.Transient("storage_failed", f"The storage at {self.root} does not keep what it is given.")

    def delete_stale_incoming(self, *, older_than_seconds: float) -> int:
        """Remove incoming files of programs that died, and say how many."""
        stale = list(_within(self.root / _INCOMING, older_than_seconds))
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _expect_begun(self) -> None:
        if not self.begun():
            raise errors.Transient(
                "storage_failed",
                f"The storage at {self.root} is not the one used before: a disk is not mounted, or a restored copy "
                f"lacks its file {_MARKER}. Nothing was stored.",
            )

    def _path(self, batch: uuid.UUID, name: str) -> Path:
        return self.root / str(batch) / name


@contextlib.contextmanager
def translated(*, missing: bool = False) -> Iterator[None]:
    """Translate what the file system raises; with ``missing``, let FileNotFoundError through."""
    try:
        yield
    except OSError as err:
        if missing and isinstance(err, FileNotFoundError):
            raise
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.OutOfSpace("storage_full", "The storage is full; what was accepted before is kept.") from err
        raise errors.Transient("storage_failed", f"The storage failed: {err.strerror}.") from err


def _within(folder: Path, older_than_seconds: float | None) -> Iterator[Path]:
    """What lies in a folder, or what of it is old enough; a folder that is not there holds nothing."""
    limit = None if older_than_seconds is None else time.time() - older_than_seconds
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if limit is None or path.stat().st_mtime < limit:
                    yield path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
