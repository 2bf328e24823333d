"""The conditions for an active batch: claims are taken from it, and it counts as waiting."""

from dermq.models import Batch

WAITING_BATCHES = (
    Batch.finished_at.is_(None),
    Batch.cancelled_at.is_(None),
    Batch.deleted_at.is_(None),
    Batch.queued > 0,
)
"""Conditions on a batch that has images waiting."""
