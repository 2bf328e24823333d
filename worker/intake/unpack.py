"""Unpacks archives into their batches, an entry at a time, and resumes where it was stopped.

A page of entries is written to incoming files and checked, then recorded in one transaction together with where to go
on, so that every entry is taken exactly once whatever is killed. After a slice of time the archive is put back, so
that a large one does not keep the others waiting.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, arrivals, db, errors
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Claim
from dermq.queue import claims
from dermq.wakeups import Queue
from worker.intake import entries
from worker.process.lease_renewal import LeaseRenewal
from worker.process.runtime import Runtime
from worker.process.shutdown import Stop

log = logging.getLogger(__name__)

SLICE_SECONDS = 15.0
"""After so long an archive is put back behind the others."""
_PAUSE_SECONDS = 2.0
_SKIPPED_NAMES_KEPT = 100


@dataclass(frozen=True)
class ArchiveLease:
    """An archive that is ours until the lease runs out."""

    token: uuid.UUID
    archive_id: uuid.UUID
    batch_id: uuid.UUID
    sha256: str
    next_entry: int
    unpacked_bytes: int


def drain(runtime: Runtime) -> None:
    """Unpack what waits, for a while; safe to run twice, and safe not to run."""
    runtime.wakeups.acknowledge(Queue.INTAKE)
    deadline = time.monotonic() + runtime.settings.drain_seconds
    put_back: list[uuid.UUID] = []
    with Stop(runtime.settings) as stop:
        while not stop.requested:
            if time.monotonic() > deadline:
                runtime.wakeups.send(Queue.INTAKE)
                return
            task = None
            try:
                task = db.transact(runtime.sessions, claim, runtime, put_back)
                runtime.heartbeat.progress()
                if task is None:
                    return
                _work(runtime, task, stop)
            except errors.Transient as err:
                log.warning("pausing %.0f s: %s", _PAUSE_SECONDS, err)
                if task is not None:
                    put_back.append(task.archive_id)
                time.sleep(_PAUSE_SECONDS)
                runtime.heartbeat.progress()


def claim(session: Session, runtime: Runtime, put_back: Sequence[uuid.UUID] = ()) -> ArchiveLease | None:
    """Lease the stored archive that has waited longest; those just ``put_back`` over a fault come after the others."""
    found = session.scalar(
        sa.select(Archive)
        .join(Batch, Batch.id == Archive.batch_id)
        .where(Archive.state == ArchiveState.STORED, Batch.cancelled_at.is_(None))
        .order_by(Archive.id.in_(put_back), Archive.touched_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Archive)
    )
    if found is None or found.sha256 is None:
        return None
    token = uuid.uuid4()
    session.execute(
        sa.insert(Claim).values(token=token, worker=runtime.name, expires_at=db.now(runtime.settings.lease_seconds))
    )
    found.claim_token = token
    found.state = ArchiveState.UNPACKING
    return ArchiveLease(token, found.id, found.batch_id, found.sha256, found.next_entry, found.unpacked_bytes)


def _work(runtime: Runtime, task: ArchiveLease, stop: Stop) -> None:
    """Unpack one archive for a slice of time, then end it or put it back."""
    with LeaseRenewal(runtime.sessions, runtime.settings.lease_seconds) as renewal:
        renewal.hold(task.token)
        try:
            whole = _unpack(runtime, task, renewal, stop)
            db.transact(runtime.sessions, _end, task, whole=whole)
            if not whole:
                runtime.wakeups.send(Queue.INTAKE)
        except errors.Permanent as err:
            db.transact(runtime.sessions, _end, task, whole=True, error=err)
            whole = True
        except (claims.LeaseLost, errors.Conflict, errors.NotFound) as err:
            log.info("unpacking of archive %s ended: %s", task.archive_id, err)
            db.transact(runtime.sessions, _end, task, whole=False)
            return
        except errors.Transient:
            db.transact(runtime.sessions, _end, task, whole=False)
            raise
    if whole:
        db.transact(runtime.sessions, archives.drop_blob, task.batch_id, task.sha256, runtime.blobs)


def _unpack(runtime: Runtime, task: ArchiveLease, renewal: LeaseRenewal, stop: Stop) -> bool:
    """Record page after page; says whether the archive is whole."""
    until = time.monotonic() + SLICE_SECONDS

    def get_on() -> None:
        renewal.progress()
        runtime.heartbeat.progress()

    with entries.open_archive(runtime.blobs, task.batch_id, task.sha256, runtime.settings, get_on) as archive:
        page = entries.EntryPage(task.next_entry, task.unpacked_bytes)
        while page.next_entry < len(archive):
            if stop.requested or time.monotonic() > until:
                return False
            with contextlib.ExitStack() as files:
                page = archive.page(page, files)
                db.transact(runtime.sessions, _record, runtime, task, page)
            get_on()
            runtime.wakeups.send(Queue.CLASSIFY)
        return True


def _record(session: Session, runtime: Runtime, task: ArchiveLease, page: entries.EntryPage) -> None:
    """Put a page into the batch and note where to go on. Raises LeaseLost when the archive is no longer ours."""
    archive = _locked(session, task)
    if archive.next_entry >= page.next_entry:
        return  # an earlier run of this transaction was committed after all
    verdicts = arrivals.receive(
        session,
        task.batch_id,
        page.arrived,
        runtime.blobs,
        runtime.settings,
        refused=page.refused,
        archive_id=task.archive_id,
    )
    archive.next_entry = page.next_entry
    archive.unpacked_bytes = page.unpacked_bytes
    archive.entries += page.entries
    archive.received += sum(verdict.error is None and not verdict.unchanged for verdict in verdicts)
    archive.unchanged += sum(verdict.unchanged for verdict in verdicts)
    archive.refused += len(page.refused) + sum(verdict.error is not None for verdict in verdicts)
    archive.skipped += len(page.skipped)
    archive.skipped_names = [*archive.skipped_names, *page.skipped][:_SKIPPED_NAMES_KEPT]
    archive.losses = 0
    archive.touched_at = datetime.now(UTC)


def _end(session: Session, task: ArchiveLease, *, whole: bool, error: errors.Permanent | None = None) -> None:
    """Close the archive or put it back, and end the claim; does nothing when the lease was lost."""
    try:
        archive = _locked(session, task)
    except claims.LeaseLost:
        archive = None
    if archive is not None and whole:
        archives.close(session, archive, ArchiveState.FAILED if error else ArchiveState.DONE, error)
    elif archive is not None:
        archive.state = ArchiveState.STORED
        archive.claim_token = None
    session.flush()
    session.execute(sa.delete(Claim).where(Claim.token == task.token))


def _locked(session: Session, task: ArchiveLease) -> Archive:
    held = session.scalar(sa.select(Claim.token).where(Claim.token == task.token).with_for_update())
    archive = archives.lock(session, task.archive_id)
    if held is None or archive is None or archive.claim_token != task.token:
        raise claims.LeaseLost(task.token)
    return archive
