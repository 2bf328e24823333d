"""Whether work waits and whether workers get on, from rows alone: what readiness, metrics and a worker's watch go by.

That a worker answers tells nothing: it may consume nothing, or hang in native code. Its progress tells. All ages are
by the database's clock.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Worker
from dermq.queue.active import WAITING_BATCHES
from dermq.settings import Settings
from dermq.wakeups import Queue


@dataclass(frozen=True)
class Pulse:
    """What the row of a worker says."""

    queue: Queue
    seen_seconds: float
    """Since it last said that it lives."""
    progressed_seconds: float
    """Since it last got on: claimed, predicted, recorded, or looked and found nothing that it can claim."""
    loading: bool
    """It changes its model, which may take minutes without progress."""

    def alive(self, settings: Settings) -> bool:
        """Whether it lives, whatever else."""
        return self.seen_seconds <= settings.worker_gone_seconds

    def stalled(self, waited_seconds: float | None, settings: Settings) -> bool:
        """Whether it did nothing for long while work waited for as long."""
        return (
            not self.loading
            and waited_seconds is not None
            and min(waited_seconds, self.progressed_seconds) >= settings.stalled_seconds
        )


def pulses(session: Session, *where: sa.ColumnElement[bool]) -> list[Pulse]:
    """The workers that have a row; a killed one keeps its row for an hour."""
    found = session.execute(sa.select(Worker, db.now()).where(*where).order_by(Worker.name))
    return [
        Pulse(
            queue=Queue(worker.queue),
            seen_seconds=(now - worker.seen_at).total_seconds(),
            progressed_seconds=(now - worker.progressed_at).total_seconds(),
            loading=worker.queue == Queue.CLASSIFY and worker.bundle is None,
        )
        for worker, now in found
    ]


def alive(session: Session, settings: Settings, *where: sa.ColumnElement[bool]) -> list[Pulse]:
    """The workers that live."""
    return [pulse for pulse in pulses(session, *where) if pulse.alive(settings)]


def waited_seconds(session: Session, queue: Queue) -> float | None:
    """How long work of a queue has waited at least; None when none waits.

    An image has no time of its own: a batch counts from when its lab last touched it, or its images last moved.
    """
    since, waiting = _WAITING[queue]
    oldest, now = session.execute(sa.select(sa.func.min(since), db.now()).where(*waiting)).one()
    return max(0.0, (now - oldest).total_seconds()) if oldest is not None else None


_WAITING: dict[Queue, tuple[sa.SQLColumnExpression[Any], tuple[sa.ColumnElement[bool], ...]]] = {
    Queue.CLASSIFY: (
        sa.case((Batch.measured_at > Batch.touched_at, Batch.measured_at), else_=Batch.touched_at),
        WAITING_BATCHES,
    ),
    Queue.INTAKE: (
        Archive.touched_at,
        (
            Archive.state == ArchiveState.STORED,
            sa.exists().where(Batch.id == Archive.batch_id, Batch.cancelled_at.is_(None)),
        ),
    ),
}
"""For each queue: since when something waits, and whether it does."""
