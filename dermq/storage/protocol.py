"""What the programs ask of a blob store. No method takes or returns a path, because an S3 store has none (ADR 11).

A blob belongs to one batch and its name is its SHA-256, so equal files of one batch are stored once. Batches share no
blobs, so that no references need to be counted. The thumbnail of an image is named ``{sha256}.thumbnail``.
"""

import builtins
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

THUMBNAIL = ".thumbnail"


class Incoming(Protocol):
    """A file that is being received. Its hash is computed on the way. It is kept when all its bytes have arrived."""

    token: str
    """The name of the file in its store until it is kept."""
    kept_at: float | None
    """The time when it was kept for a batch, in seconds by this machine's clock; None before that."""

    def write(self, chunk: builtins.bytes) -> None:
        """Append ``chunk``. Raises OutOfSpace when the store is full."""

    def finish(self) -> None:
        """End the file, which is whole; ``keep`` makes it durable. Raises OutOfSpace when the store is full."""

    def open(self) -> BinaryIO:
        """Open a finished file for reading, before it is kept."""

    @property
    def sha256(self) -> str: ...

    @property
    def bytes(self) -> int: ...


class BlobStore(Protocol):
    """A store of the bytes of images and archives. Every method raises Transient when the store fails."""

    def is_begun(self) -> bool:
        """Return whether ``begin`` was called on this store. Where it was not, a disk may be missing (not mounted)."""

    def begin(self) -> None:
        """Mark this as a store. Call it once, before the store holds its first file."""

    def receive(self) -> AbstractContextManager[Incoming]:
        """Yield a new incoming file. It is deleted at the end of the block unless it was kept."""

    def keep(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        """Move finished files durably into a batch, and set their age to zero. Idempotent.

        Raises Transient where ``begin`` was never called: files would be lost below a disk that is not mounted.
        """

    def copy(self, source: uuid.UUID, target: uuid.UUID, names: Iterable[str]) -> None:
        """Copy blobs durably from one batch to another without reading them. The age of the copies is zero."""

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: builtins.bytes) -> None:
        """Keep the thumbnail of an image, not durably. Do nothing when the batch was deleted meanwhile."""

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError."""

    def delete(self, batch: uuid.UUID, name: str, *, older_than_seconds: float | None = None) -> None:
        """Delete one blob; with ``older_than_seconds``, only if it was last kept longer ago than that. Idempotent.

        A blob that is kept again meanwhile is not deleted.
        """

    def delete_batch(self, batch: uuid.UUID) -> None:
        """Delete all blobs of a batch. Idempotent."""

    def list(self, batch: uuid.UUID, *, older_than_seconds: float | None = None) -> list[str]:
        """Return the names of a batch's blobs; with ``older_than_seconds``, of those last kept longer ago than that."""

    def list_batches(self, *, older_than_seconds: float) -> builtins.list[uuid.UUID]:
        """Return the batches whose blobs last changed longer ago than ``older_than_seconds``."""

    def measure_free_bytes(self) -> int | None:
        """Return the free space in bytes, or None for a store that does not know it."""

    def probe(self) -> None:
        """Write a small file and read it back. Raises Transient when that fails or ``begin`` was never called."""

    def delete_stale_incoming(self, *, older_than_seconds: float) -> int:
        """Delete incoming files that are older and that nobody kept, and return their number."""
