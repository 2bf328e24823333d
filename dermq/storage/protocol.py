"""What the programs need of a blob store, whatever keeps the bytes. No paths: an S3 store has none (ADR 11).

A blob belongs to one batch and is named by its SHA-256, so equal files of one batch are stored once. Nothing is shared
between batches and nothing is reference-counted. The thumbnail of an image is named ``{sha256}.thumbnail``.
"""

import builtins
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

THUMBNAIL = ".thumbnail"


class Incoming(Protocol):
    """A file that is being received: hashed as it comes, and kept only when it is whole."""

    token: str
    """Names it within its store until it is kept."""
    kept_at: float | None
    """When it was kept for a batch, by this machine's clock in seconds; None before."""

    def write(self, chunk: builtins.bytes) -> None:
        """Append ``chunk``. Raises OutOfSpace when the store is full."""

    def finish(self) -> None:
        """End the file, which is whole; ``keep`` makes it durable. Raises OutOfSpace when the store is full."""

    def open(self) -> BinaryIO:
        """Read a finished file back, before it is kept."""

    @property
    def sha256(self) -> str: ...

    @property
    def bytes(self) -> int: ...


class BlobStore(Protocol):
    """Where the bytes of images and archives are kept. Every verb raises Transient when the store fails."""

    def begun(self) -> bool:
        """Return whether this store was used before; an empty one may be a disk that is not mounted."""

    def begin(self) -> None:
        """Make this a store. Called before it holds its first file, and never again."""

    def incoming(self) -> AbstractContextManager[Incoming]:
        """Receive a file; it is removed at the end of the block unless it was kept."""

    def keep(self, batch: uuid.UUID, files: Iterable[Incoming]) -> None:
        """Keep finished files for a batch, durably, and make them young again. Safe to do twice.

        Raises Transient where no store was begun: on a disk that is not mounted, files would be lost.
        """

    def copy(self, source: uuid.UUID, target: uuid.UUID, names: Iterable[str]) -> None:
        """Copy blobs from one batch to another without reading them, durably; the copies are young."""

    def put_thumbnail(self, batch: uuid.UUID, sha256: str, jpeg: builtins.bytes) -> None:
        """Keep the thumbnail of an image, but bring back no batch that was deleted. It need not be durable."""

    def open(self, batch: uuid.UUID, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError."""

    def delete(self, batch: uuid.UUID, name: str, *, older_than_seconds: float | None = None) -> None:
        """Delete one blob; with an age, only if it was last kept longer ago. Safe to do twice.

        A blob that is kept again while this runs stays.
        """

    def delete_batch(self, batch: uuid.UUID) -> None:
        """Delete all blobs of a batch. Safe to do twice."""

    def list(self, batch: uuid.UUID, *, older_than_seconds: float | None = None) -> list[str]:
        """Return the names of a batch's blobs, or of those that were last kept longer ago than this."""

    def batches(self, *, older_than_seconds: float) -> builtins.list[uuid.UUID]:
        """Return the batches whose blobs last changed longer ago than this."""

    def free_bytes(self) -> int | None:
        """Return how much space is left; None where that cannot be known."""

    def probe(self) -> None:
        """Raise Transient unless the store is there and gives back what it takes."""

    def delete_stale_incoming(self, *, older_than_seconds: float) -> int:
        """Remove files that were never wholly received, and return how many."""
