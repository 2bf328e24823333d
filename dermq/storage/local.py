"""A blob store in a folder of this machine. A blob is the file ``{batch}/{sha256}``, and a batch is a folder."""

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
from dermq.storage.protocol import THUMBNAIL, Incoming

_INCOMING = "incoming"
_MARKER = ".dermq"
"""The name of a file in the folder of every store. A folder without it may be an empty mount point."""
_ASIDE = ".aside"
"""The suffix of a blob's name while ``delete`` checks its age."""


class LocalIncoming:
    """A file that is being received. It lies in the folder ``incoming`` until it is kept."""

    def __init__(self, path: Path) -> None:
        self.token = path.name
        self.kept_at: float | None = None
        self.bytes = 0
        self._path = path
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``. Raises OutOfSpace when the disk is full."""
        with translate_errors():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def finish(self) -> None:
        """Close the file, which is whole. Raises OutOfSpace when the disk is full."""
        with translate_errors():
            self._file.close()

    def open(self) -> BinaryIO:
        """Open a finished file for reading, before it is kept."""
        with translate_errors():
            return self._path.open("rb")

    def discard(self) -> None:
        """Close the file, and delete it unless it was kept."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


class LocalStore:
    """A blob store in a local folder. ``dermq.storage.protocol`` says what each method promises."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def is_begun(self) -> bool:
        """Return whether the folder has the marker, and so is not an empty mount point."""
        return (self.root / _MARKER).is_file()

    def begin(self) -> None:
        """Write the marker. Call it once, before the store holds its first file."""
        with translate_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _MARKER).touch()

    @contextlib.contextmanager
    def receive(self) -> Iterator[LocalIncoming]:
        """Yield a new incoming file. It is deleted at the end of the block unless it was kept."""
        folder = self.root / _INCOMING
        with translate_errors():
            folder.mkdir(parents=True, exist_ok=True)
            file = LocalIncoming(folder / uuid.uuid4().hex)
        try:
            yield file
        finally:
            file.discard()

    def keep(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        """Move finished files durably into a batch, and set their age to zero. Idempotent.

        Raises Transient where ``begin`` was never called: files would be lost below a disk that is not mounted.
        """
        folder = self.root / str(batch)
        with translate_errors():
            self._expect_begun()
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                received = self.root / _INCOMING / file.token
                with contextlib.suppress(FileNotFoundError):  # kept before
                    _sync(received)  # only what is accepted is made durable: syncing takes longer than writing
                    os.utime(received)
                    received.rename(folder / file.sha256)
                (folder / file.sha256).stat()  # raises when the reaper has deleted it since as an orphan
                file.kept_at = file.kept_at or time.time()
            _sync(folder)
            if new:
                _sync(self.root)

    def copy(self, source: uuid.UUID, target: uuid.UUID, names: Iterable[str]) -> None:
        """Link blobs of one batch durably into another. Both names share one age, which is set to zero."""
        folder = self.root / str(target)
        with translate_errors():
            self._expect_begun()
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                link = self.root / _INCOMING / uuid.uuid4().hex
                link.hardlink_to(self._path(source, name))
                os.utime(link)
                link.replace(folder / name)
                link.unlink(missing_ok=True)  # when both are the same file already, ``replace`` keeps both names
            _sync(folder)
            _sync(self.root)

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: bytes) -> None:
        """Keep the thumbnail of an image. It is not made durable, because it can be made again."""
        with translate_errors(), self.receive() as file:
            file.write(jpeg)
            file._file.close()
            # The folder is not made here: a thumbnail must not bring back a batch that was deleted meanwhile.
            with contextlib.suppress(FileNotFoundError):
                (self.root / _INCOMING / file.token).rename(self._path(batch, sha256 + THUMBNAIL))

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError, or Transient when the store fails."""
        with translate_errors(missing=True):
            return self._path(batch, name).open("rb")

    def delete(self, batch: uuid.UUID, name: str, *, older_than_seconds: float | None = None) -> None:
        """Delete one blob; with ``older_than_seconds``, only if it was last kept longer ago than that. Idempotent.

        An upload may keep the same bytes between the check of the age and the deletion. So the file is renamed first,
        then its age is checked again, and it gets its name back if it is not old.
        """
        path = self._path(batch, name)
        with translate_errors():
            if older_than_seconds is None:
                path.unlink(missing_ok=True)
            elif name.endswith(_ASIDE):  # a reaper was killed between renaming and deleting
                _put_back(path)
            elif _is_older(path, older_than_seconds):
                self._delete_old(path, older_than_seconds)

    def _delete_old(self, path: Path, seconds: float) -> None:
        aside = path.with_name(path.name + _ASIDE)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if _is_older(aside, seconds):
                aside.unlink()
            else:
                _put_back(aside)

    def delete_batch(self, batch: uuid.UUID) -> None:
        """Delete all blobs of a batch. Idempotent."""
        with translate_errors():
            shutil.rmtree(self.root / str(batch), ignore_errors=True)

    def list(self, batch: uuid.UUID, *, older_than_seconds: float | None = None) -> list[str]:
        """Return the names of a batch's blobs; with ``older_than_seconds``, of those last kept longer ago than that."""
        with translate_errors():
            return sorted(path.name for path in _list_within(self.root / str(batch), older_than_seconds))

    def list_batches(self, *, older_than_seconds: float) -> builtins.list[uuid.UUID]:
        """Return the batches whose folder was last changed longer ago than ``older_than_seconds``."""
        found = []
        for path in _list_within(self.root, older_than_seconds):
            with contextlib.suppress(ValueError):
                found.append(uuid.UUID(path.name))
        return found

    def measure_free_bytes(self) -> int:
        """Return the free bytes on the disk of this folder."""
        folder = self.root
        while not folder.exists():  # before the first file, the store's folder does not exist
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def probe(self) -> None:
        """Write a small file and read it back. Raises Transient when that fails or the marker is missing."""
        with translate_errors(), self.receive() as file:
            file.write(b"probe")
            file.finish()
            _sync(self.root / _INCOMING / file.token)
            self._expect_begun()
            with file.open() as content:
                answer = content.read()
            if answer != b"probe":
                raise errors.Transient(
                    "storage_failed", f"The storage at {self.root} returned other bytes than were written."
                )

    def delete_stale_incoming(self, *, older_than_seconds: float) -> int:
        """Delete the incoming files of programs that were killed, and return their number."""
        stale = list(_list_within(self.root / _INCOMING, older_than_seconds))
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _expect_begun(self) -> None:
        if not self.is_begun():
            raise errors.Transient(
                "storage_failed",
                f"The storage at {self.root} is not the one used before: a disk is not mounted, or a restored copy "
                f"lacks its file {_MARKER}. Nothing was stored.",
            )

    def _path(self, batch: uuid.UUID, name: str) -> Path:
        return self.root / str(batch) / name


@contextlib.contextmanager
def translate_errors(*, missing: bool = False) -> Iterator[None]:
    """Raise OutOfSpace or Transient for an OSError. With ``missing``, FileNotFoundError is not translated."""
    try:
        yield
    except OSError as err:
        if missing and isinstance(err, FileNotFoundError):
            raise
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.OutOfSpace("storage_full", "The storage is full; what was accepted before is kept.") from err
        raise errors.Transient("storage_failed", f"The storage failed: {err.strerror}.") from err


def _list_within(folder: Path, older_than_seconds: float | None) -> Iterator[Path]:
    """Yield the entries of a folder that are old enough, or all without an age; none for a missing folder."""
    limit = None if older_than_seconds is None else time.time() - older_than_seconds
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if limit is None or path.stat().st_mtime < limit:
                    yield path


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False


def _put_back(aside: Path) -> None:
    """Rename a blob back, unless an upload has kept the same bytes under the name meanwhile."""
    with contextlib.suppress(FileExistsError):
        aside.with_name(aside.name.removesuffix(_ASIDE)).hardlink_to(aside)
    aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
