"""A blob store in memory with the interface of the real one; ``tests/unit/test_storage.py`` tests both alike."""

import builtins
import contextlib
import hashlib
import io
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from dermq import errors
from dermq.storage import THUMBNAIL, Incoming


class MemoryIncoming:
    """A file that is being received."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.kept_at: float | None = None
        self.content = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def write(self, chunk: builtins.bytes) -> None:
        self.content += chunk

    def finish(self) -> None:
        """Do nothing: bytes in memory need no fsync."""

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)

    @property
    def bytes(self) -> int:
        return len(self.content)


class MemoryStore:
    """Holds blobs by batch and name, each with the time when it was last kept."""

    def __init__(self) -> None:
        self._begun = False
        self._incoming: dict[str, MemoryIncoming] = {}
        self._batches: dict[uuid.UUID, dict[str, tuple[float, builtins.bytes]]] = {}

    def is_begun(self) -> bool:
        return self._begun

    def begin(self) -> None:
        self._begun = True

    @contextlib.contextmanager
    def receive(self) -> Iterator[MemoryIncoming]:
        file = MemoryIncoming()
        self._incoming[file.token] = file
        yield file
        self._incoming.pop(file.token, None)

    def keep(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        self.probe()
        kept = self._batches.setdefault(batch, {})
        for file in files:
            if (received := self._incoming.pop(file.token, None)) is not None:
                kept[file.sha256] = time.time(), received.content
            if file.sha256 not in kept:
                raise errors.Transient("storage_failed", "The file is gone.")
            file.kept_at = file.kept_at or time.time()

    def copy(self, source: uuid.UUID, target: uuid.UUID, names: Iterable[str]) -> None:
        self.probe()
        for name in names:
            if name not in self._batches.get(source, {}):
                raise errors.Transient("storage_failed", "The file is gone.")
            self._batches.setdefault(target, {})[name] = time.time(), self._batches[source][name][1]

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: builtins.bytes) -> None:
        if batch in self._batches:
            self._batches[batch][sha256 + THUMBNAIL] = time.time(), jpeg

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        if name not in self._batches.get(batch, {}):
            raise FileNotFoundError(name)
        return io.BytesIO(self._batches[batch][name][1])

    def delete(self, batch: uuid.UUID, name: str, *, older_than_seconds: float | None = None) -> None:
        if name in self.list(batch, older_than_seconds=older_than_seconds):
            del self._batches[batch][name]

    def delete_batch(self, batch: uuid.UUID) -> None:
        self._batches.pop(batch, None)

    def list(self, batch: uuid.UUID, *, older_than_seconds: float | None = None) -> list[str]:
        until = time.time() - (older_than_seconds or 0)
        blobs = self._batches.get(batch, {}).items()
        return sorted(name for name, (kept_at, _) in blobs if older_than_seconds is None or kept_at < until)

    def list_batches(self, *, older_than_seconds: float) -> builtins.list[uuid.UUID]:
        until = time.time() - older_than_seconds
        return [batch for batch, blobs in self._batches.items() if all(kept < until for kept, _ in blobs.values())]

    def measure_free_bytes(self) -> int | None:
        return None

    def probe(self) -> None:
        if not self._begun:
            raise errors.Transient("storage_failed", "The storage is not the one used before. Nothing was stored.")

    def delete_stale_incoming(self, *, older_than_seconds: float) -> int:
        return 0
