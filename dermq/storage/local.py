"""A blob store in a folder on this machine: ``{batch}/{sha256}``. Deleting a batch removes its folder."""

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
"""Lies in every store that was ever put into; a folder without it is a storage that is not mounted."""
_ASIDE = ".aside"
"""Ends the name of a blob while its age is looked at."""


class LocalIncoming:
    """A file that is being received. It lies in a folder of its own until it is whole and kept."""

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
        with translated():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def finish(self) -> None:
        """Close the file, which is whole. Raises OutOfSpace when the disk is full."""
        with translated():
            self._file.close()

    def open(self) -> BinaryIO:
        """Read the file back, before it is kept."""
        with translated():
            return self._path.open("rb")

    def discard(self) -> None:
        """Close the file, and remove it if it was not kept."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


class LocalStore:
    """A blob store in a local folder. ``dermq.storage.protocol`` says what each verb promises."""

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
    def incoming(self) -> Iterator[LocalIncoming]:
        """A new incoming file, removed at the end of the block unless it was kept."""
        folder = self.root / _INCOMING
        with translated():
            folder.mkdir(parents=True, exist_ok=True)
            file = LocalIncoming(folder / uuid.uuid4().hex)
        try:
            yield file
        finally:
            file.discard()

    def keep(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        """Move finished incoming files to their places, durably, and make them young again. Safe to do twice.

        Raises Transient where no store was begun: on a disk that is not mounted, files would be lost.
        """
        folder = self.root / str(batch)
        with translated():
            self._expect_begun()
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                received = self.root / _INCOMING / file.token
                with contextlib.suppress(FileNotFoundError):  # kept before
                    _sync(received)  # only what is accepted is made durable: syncing takes longer than writing
                    os.utime(received)
                    received.rename(folder / file.sha256)
                (folder / file.sha256).stat()  # and not collected since as an orphan
                file.kept_at = file.kept_at or time.time()
            _sync(folder)
            if new:
                _sync(self.root)

    def copy(self, source: uuid.UUID, target: uuid.UUID, names: Iterable[str]) -> None:
        """Link blobs of one batch into another, durably. A copy shares its age with its source: both are young now."""
        folder = self.root / str(target)
        with translated():
            self._expect_begun()
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                link = self.root / _INCOMING / uuid.uuid4().hex
                link.hardlink_to(self._path(source, name))
                os.utime(link)
                link.replace(folder / name)
                link.unlink(missing_ok=True)  # replacing a file by itself leaves both names
            _sync(folder)
            _sync(self.root)

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: bytes) -> None:
        """Keep the thumbnail of an image. It can be made again, so it is not made durable."""
        with translated(), self.incoming() as file:
            file.write(jpeg)
            file._file.close()
            # The folder is not made here: a thumbnail must not bring back a batch that was deleted meanwhile.
            with contextlib.suppress(FileNotFoundError):
                (self.root / _INCOMING / file.token).rename(self._path(batch, sha256 + THUMBNAIL))

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError, or Transient when the store fails."""
        with translated(missing=True):
            return self._path(batch, name).open("rb")

    def delete(self, batch: uuid.UUID, name: str, *, older_than_seconds: float | None = None) -> None:
        """Delete one blob; with an age, only if it was last kept longer ago. Safe to do twice.

        An upload may keep the same bytes between a look at the age and the removal. So the file is renamed first,
        then looked at, and put back if it is young.
        """
        path = self._path(batch, name)
        with translated():
            if older_than_seconds is None:
                path.unlink(missing_ok=True)
            elif name.endswith(_ASIDE):  # its reaper died over it
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
        """Delete all blobs of a batch. Safe to do twice."""
        with translated():
            shutil.rmtree(self.root / str(batch), ignore_errors=True)

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

    def free_bytes(self) -> int:
        """Return how much space is left on the disk of this folder."""
        folder = self.root
        while not folder.exists():  # no image has arrived yet
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def probe(self) -> None:
        """Raise Transient unless the store is there and gives back what it takes."""
        with translated(), self.incoming() as file:
            file.write(b"probe")
            file.finish()
            _sync(self.root / _INCOMING / file.token)
            self._expect_begun()
            with file.open() as content:
                answer = content.read()
            if answer != b"probe":
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


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False


def _put_back(aside: Path) -> None:
    """Give a blob its name back, unless the same bytes were kept under it meanwhile."""
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
