"""Claims of archives: a stored archive is leased to one worker, which unpacks it or puts it back."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, errors, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch
from dermq.queue import leases
from dermq.queue.active import WAITING_ARCHIVES
from dermq.queue.leases import MOST_LOSSES, LeaseLost


@dataclass(frozen=True)
class ArchiveLease:
    """An archive that one worker holds until the lease runs out."""

    token: uuid.UUID
    archive_id: uuid.UUID
    batch_id: uuid.UUID
    sha256: str
    next_entry: int
    unpacked_bytes: int


def take(
    session: Session, worker: str, lease_seconds: float, put_back: Sequence[uuid.UUID] = ()
) -> ArchiveLease | None:
    """Lease the stored archive that has waited longest, or return None when none waits.

    Archives in ``put_back``, which this worker returned because of a fault, come after all others.
    """
    found = session.scalar(
        sa.select(Archive)
        .join(Batch, Batch.id == Archive.batch_id)
        .where(Archive.state == ArchiveState.STORED, *WAITING_ARCHIVES)
        .order_by(Archive.id.in_(put_back), Archive.touched_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Archive)
    )
    if found is None or found.sha256 is None:
        return None
    token = leases.begin(session, worker, lease_seconds)
    transitions.move_archive(session, found, ArchiveState.UNPACKING, claim_token=token)
    return ArchiveLease(token, found.id, found.batch_id, found.sha256, found.next_entry, found.unpacked_bytes)


def lock(session: Session, lease: ArchiveLease) -> Archive:
    """Lock a leased archive and return it. Raises LeaseLost when the lease has been lost."""
    leases.lock(session, lease.token)
    archive = archives.lock(session, lease.archive_id)
    if archive is None or archive.claim_token != lease.token:
        raise LeaseLost(lease.token)
    return archive


def end(session: Session, lease: ArchiveLease, *, unpacked: bool, error: errors.Permanent | None = None) -> None:
    """Close the archive when it is ``unpacked`` or has an ``error``, else store it again; then end the lease.

    The archive is not changed when the lease has been lost.
    """
    try:
        archive = lock(session, lease)
    except LeaseLost:
        archive = None
    if archive is not None:
        if unpacked or error is not None:
            archives.close(session, archive, ArchiveState.FAILED if error else ArchiveState.DONE, error)
        else:
            transitions.move_archive(session, archive, ArchiveState.STORED)
    leases.end(session, lease.token)


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
