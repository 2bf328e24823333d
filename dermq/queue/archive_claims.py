"""Claims of archives: a stored archive is leased to one worker, which unpacks it or puts it back."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, errors, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Lab, QueueRow
from dermq.queue import fairness, leases
from dermq.queue.active import WAITING_ARCHIVES
from dermq.queue.leases import MOST_LOSSES, LeaseLost

SLICE_SECONDS = 5.0
"""The length of a turn: an archive is put back after this time, so that the archives of other labs get theirs."""


@dataclass(frozen=True)
class ArchiveLease:
    """An archive that one worker holds until the lease runs out."""

    token: uuid.UUID
    archive_id: uuid.UUID
    batch_id: uuid.UUID
    lab_id: int
    sha256: str
    encoding: str | None
    next_entry: int


def take(
    session: Session, worker: str, lease_seconds: float, put_back: Sequence[uuid.UUID] = ()
) -> ArchiveLease | None:
    """Lease the stored archive of the lab that is next in the fair order, or return None when none waits.

    Of one lab's archives, the one that has waited longest comes first. Archives in ``put_back``, which this worker
    returned because of a fault, come after all others. The lab is charged for a whole slice; ``end`` gives back what is
    not used, and a worker that dies gives back nothing.
    """
    if session.scalar(_select_waiting().limit(1)) is None:
        return None  # the usual case, which takes no lock
    queue = session.scalars(sa.select(QueueRow).with_for_update()).one()
    start = sa.case((Lab.tag > queue.served, Lab.tag), else_=queue.served)
    found = session.scalar(
        _select_waiting()
        .order_by(Archive.id.in_(put_back), start, Lab.id, Archive.touched_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Archive)
    )
    if found is None or found.sha256 is None:
        return None
    lab = session.scalars(sa.select(Lab).join(Batch, Batch.lab_id == Lab.id).where(Batch.id == found.batch_id)).one()
    queue.served = max(lab.tag, queue.served)
    lab.tag = queue.served + SLICE_SECONDS * fairness.SECOND_IMAGES / lab.weight
    token = leases.begin(session, worker, lease_seconds)
    transitions.move_archive(session, found, ArchiveState.UNPACKING, claim_token=token)
    return ArchiveLease(token, found.id, found.batch_id, lab.id, found.sha256, found.encoding, found.next_entry)


def _select_waiting() -> sa.Select[Archive]:
    return (
        sa.select(Archive)
        .join(Batch, Batch.id == Archive.batch_id)
        .join(Lab, Lab.id == Batch.lab_id)
        .where(Archive.state == ArchiveState.STORED, *WAITING_ARCHIVES)
    )


def lock(session: Session, lease: ArchiveLease) -> Archive:
    """Lock a leased archive and return it. Raises LeaseLost when the lease has been lost."""
    leases.lock(session, lease.token)
    archive = archives.lock(session, lease.archive_id)
    if archive is None or archive.claim_token != lease.token:
        raise LeaseLost(lease.token)
    return archive


def end(
    session: Session,
    lease: ArchiveLease,
    *,
    unpacked: bool,
    seconds: float,
    error: errors.Permanent | errors.Transient | None = None,
) -> None:
    """Close the archive when it is ``unpacked`` or has a Permanent error, else store it again; then end the lease.

    A Transient ``error`` is noted on the stored archive, as the reason why it waits. The lab gets back what remains of
    the slice after ``seconds``. The archive is not changed when the lease has been lost.
    """
    _give_back_time(session, lease.lab_id, SLICE_SECONDS - seconds)
    try:
        archive = lock(session, lease)
    except LeaseLost:
        archive = None
    if archive is not None:
        if isinstance(error, errors.Permanent):
            archives.close(session, archive, ArchiveState.FAILED, error)
        elif unpacked:
            archives.close(session, archive, ArchiveState.DONE)
        else:
            archives.put_back(session, archive, error)
    leases.end(session, lease.token)


def _give_back_time(session: Session, lab_id: int, seconds: float) -> None:
    """Give back a part of the charge of a slice; a negative number of seconds charges more. Locks the queue."""
    session.scalars(sa.select(QueueRow).with_for_update()).one()
    tag = Lab.tag - seconds * fairness.SECOND_IMAGES / Lab.weight
    session.execute(sa.update(Lab).where(Lab.id == lab_id).values(tag=tag))


def give_back_lost(session: Session, token: uuid.UUID) -> None:
    """Store the archives of a lost lease again, for another worker to resume; fail those lost too often."""
    held = sa.select(Archive).where(Archive.claim_token == token).order_by(Archive.id).with_for_update()
    for archive in session.scalars(held):
        archive.losses += 1
        if archive.losses >= MOST_LOSSES:
            lost = errors.Permanent("worker_lost", f"{MOST_LOSSES} workers ended while they unpacked this archive.")
            archives.close(session, archive, ArchiveState.FAILED, lost)
        else:
            transitions.move_archive(session, archive, ArchiveState.STORED)
