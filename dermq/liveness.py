"""Whether work waits and whether workers make progress, read from rows alone.

Readiness, metrics and the watchdog of a worker all use these functions. Progress is measured and not whether a process
answers, because one that answers may receive no messages or hang in native code (ADR 8). All ages are by the database's
clock.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Worker
from dermq.queue.active import WAITING_ARCHIVES, WAITING_BATCHES
from dermq.settings import Settings
from dermq.wakeups import Queue


@dataclass(frozen=True)
class Pulse:
    """How long ago a worker sent its last heartbeat and made its last progress."""

    queue: Queue
    seen_seconds: float
    """Seconds since its last heartbeat."""
    progressed_seconds: float
    """Seconds since its last progress: it claimed, predicted, recorded, or found nothing that it can claim."""
    loading: bool
    """Whether it is loading a model, which may take minutes without progress."""

    def is_alive(self, settings: Settings) -> bool:
        """Return whether its last heartbeat is recent."""
        return self.seen_seconds <= settings.worker_gone_seconds

    def is_stalled(self, waited_seconds: float | None, settings: Settings) -> bool:
        """Return whether it made no progress for ``stalled_seconds`` while work waited for as long."""
        return (
            not self.loading
            and waited_seconds is not None
            and min(waited_seconds, self.progressed_seconds) >= settings.stalled_seconds
        )


def list_pulses(session: Session, *where: sa.ColumnElement[bool]) -> list[Pulse]:
    """Return the pulse of every worker that has a row. The row of a killed worker stays for an hour."""
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


def list_alive(session: Session, settings: Settings, *where: sa.ColumnElement[bool]) -> list[Pulse]:
    """Return the pulse of every worker whose last heartbeat is recent."""
    return [pulse for pulse in list_pulses(session, *where) if pulse.is_alive(settings)]


def measure_waited_seconds(session: Session, queue: Queue) -> float | None:
    """Return for how long, at least, the oldest work of a queue has waited; None when none waits.

    Images have no times of their own. So a batch counts from the time when its lab last touched it or its images last
    moved, whichever is later.
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
            sa.exists().where(Batch.id == Archive.batch_id, *WAITING_ARCHIVES),
        ),
    ),
}
"""For each queue: the time since which a row waits, and the conditions for a row to wait."""
