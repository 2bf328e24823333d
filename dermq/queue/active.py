"""The conditions for an active batch: claims are taken from it, and it counts as waiting."""

import sqlalchemy as sa

from dermq.models import Batch, Lab

IN_ENABLED_LAB = Batch.lab_id.not_in(sa.select(Lab.id).where(Lab.disabled_at.is_not(None)).scalar_subquery())
"""Condition on a batch that its lab is not disabled. The work of a disabled lab waits and is not claimed."""
WAITING_BATCHES = (
    Batch.finished_at.is_(None),
    Batch.cancelled_at.is_(None),
    Batch.deleted_at.is_(None),
    Batch.queued > 0,
    IN_ENABLED_LAB,
)
"""Conditions on a batch that has images waiting."""
WAITING_ARCHIVES = (Batch.cancelled_at.is_(None), IN_ENABLED_LAB)
"""Conditions on the batch of a stored archive that waits to be unpacked."""
