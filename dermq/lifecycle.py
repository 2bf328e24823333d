"""The states of images, archives and batches, and the moves between them.

This module lists the moves that are allowed. Only ``dermq.transitions`` makes them.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeVar


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


_STATE = TypeVar("_STATE", ImageState, ArchiveState)
Moves = Mapping[_STATE | None, frozenset[_STATE | None]]
"""For each state, the states that may follow. None stands for a row that does not exist yet, or no longer."""

IMAGE_MOVES: Moves[ImageState] = {
    None: frozenset({ImageState.QUEUED}),
    ImageState.QUEUED: frozenset({ImageState.RUNNING, ImageState.CANCELLED, None}),
    ImageState.RUNNING: frozenset({ImageState.DONE, ImageState.FAILED, ImageState.QUEUED, ImageState.CANCELLED, None}),
    ImageState.DONE: frozenset({None}),
    ImageState.FAILED: frozenset({ImageState.QUEUED, None}),
    ImageState.CANCELLED: frozenset({None}),
}
"""A running image is queued again when its lease is lost or given back; in a cancelled batch it is cancelled. A retry
queues a failed image again. Any image may be deleted with its batch."""

ARCHIVE_MOVES: Moves[ArchiveState] = {
    None: frozenset({ArchiveState.RECEIVING}),
    ArchiveState.RECEIVING: frozenset({ArchiveState.STORED, ArchiveState.FAILED, ArchiveState.CANCELLED, None}),
    ArchiveState.STORED: frozenset({ArchiveState.UNPACKING, ArchiveState.CANCELLED, None}),
    ArchiveState.UNPACKING: frozenset(
        {ArchiveState.STORED, ArchiveState.DONE, ArchiveState.FAILED, ArchiveState.CANCELLED, None}
    ),
    ArchiveState.DONE: frozenset({None}),
    ArchiveState.FAILED: frozenset({None}),
    ArchiveState.CANCELLED: frozenset({None}),
}
"""An archive that is being unpacked is stored again when its lease is lost or given back. A received archive is deleted
when its batch has the same bytes already. Any archive may be deleted with its batch."""

OPEN_ARCHIVE = frozenset({ArchiveState.RECEIVING, ArchiveState.STORED, ArchiveState.UNPACKING})
"""An archive in one of these states keeps its batch from finishing."""


def check(moves: Moves[_STATE], source: _STATE | None, target: _STATE | None) -> None:
    """Raise ValueError unless ``moves`` allow the move from ``source`` to ``target``."""
    if target not in moves[source]:
        raise ValueError(f"There is no move from {source} to {target}.")


def find_batch_state(
    *,
    cancelled_at: datetime | None,
    sealed_at: datetime | None,
    finished_at: datetime | None,
    has_run: bool,
) -> BatchState:
    """Return the state of a batch: the first that holds of cancelled, open, finished, running, queued."""
    if cancelled_at is not None:
        return BatchState.CANCELLED
    if sealed_at is None:
        return BatchState.OPEN
    if finished_at is not None:
        return BatchState.FINISHED
    return BatchState.RUNNING if has_run else BatchState.QUEUED
