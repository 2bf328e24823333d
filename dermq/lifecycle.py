"""The states of images, archives and batches, and the moves between them. No other module knows the moves."""

from datetime import datetime
from enum import StrEnum


class ImageState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ArchiveState(StrEnum):
    RECEIVING = "receiving"
    STORED = "stored"
    UNPACKING = "unpacking"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    CANCELLED = "cancelled"
    OPEN = "open"
    FINISHED = "finished"
    RUNNING = "running"
    QUEUED = "queued"


IMAGE_MOVES = {
    ImageState.QUEUED: frozenset({ImageState.RUNNING, ImageState.CANCELLED}),
    ImageState.RUNNING: frozenset({ImageState.DONE, ImageState.FAILED, ImageState.QUEUED, ImageState.CANCELLED}),
    ImageState.FAILED: frozenset({ImageState.QUEUED}),
    ImageState.DONE: frozenset[ImageState](),
    ImageState.CANCELLED: frozenset[ImageState](),
}
"""Running goes back to queued (or to cancelled, in a cancelled batch) when a lease is lost or given back; failed
goes to queued by a retry."""

OPEN_ARCHIVE = frozenset({ArchiveState.RECEIVING, ArchiveState.STORED, ArchiveState.UNPACKING})
"""An archive in one of these keeps its batch from finishing."""


def check(source: ImageState, target: ImageState) -> None:
    """Raise ValueError when no image may move from ``source`` to ``target``."""
    if target not in IMAGE_MOVES[source]:
        raise ValueError(f"No image moves from {source} to {target}.")


def batch_state(
    *,
    cancelled_at: datetime | None,
    sealed_at: datetime | None,
    finished_at: datetime | None,
    has_run: bool,
) -> BatchState:
    """The state of a batch: the first that holds."""
    if cancelled_at is not None:
        return BatchState.CANCELLED
    if sealed_at is None:
        return BatchState.OPEN
    if finished_at is not None:
        return BatchState.FINISHED
    return BatchState.RUNNING if has_run else BatchState.QUEUED
