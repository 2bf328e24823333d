"""Unpacks archives into their batches, a page of entries at a time, and resumes after an interruption.

A page's entries are unpacked to incoming files and checked. Then one transaction records them together with the
position of the next entry, so every entry enters the batch exactly once, even when the process is killed. After a
slice of ``archive_claims.SLICE_SECONDS`` the archive is put back, so that those of other labs do not wait for it.
"""

import contextlib
import logging
import time
import uuid
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.orm import Session

from dermq import archives, arrivals, db, errors, quotas
from dermq.queue import archive_claims
from dermq.queue.archive_claims import ArchiveLease
from dermq.queue.leases import LeaseLost
from dermq.wakeups import Queue
from worker.intake import entries
from worker.process.lease_renewal import LeaseRenewal
from worker.process.runtime import Runtime
from worker.process.shutdown import StopRequest

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0
_SKIPPED_NAMES_KEPT = 100


def drain(runtime: Runtime) -> None:
    """Unpack until no archive waits or ``drain_seconds`` are over; safe to run twice, and safe not to run."""
    runtime.wakeups.acknowledge(Queue.INTAKE)
    deadline = time.monotonic() + runtime.settings.drain_seconds
    put_back: list[uuid.UUID] = []
    with StopRequest(runtime.settings) as stop:
        while not stop.requested:
            if time.monotonic() > deadline:
                runtime.wakeups.send(Queue.INTAKE)
                return
            lease = None
            try:
                lease = db.transact(
                    runtime.sessions, archive_claims.take, runtime.name, runtime.settings.lease_seconds, put_back
                )
                runtime.heartbeat.note_progress()
                if lease is None:
                    return
                _work(runtime, lease, stop)
            except errors.Transient as err:
                log.warning("pausing %.0f s: %s", _PAUSE_SECONDS, err)
                if lease is not None:
                    put_back.append(lease.archive_id)
                time.sleep(_PAUSE_SECONDS)
                runtime.heartbeat.note_progress()


def _work(runtime: Runtime, lease: ArchiveLease, stop: StopRequest) -> None:
    """Unpack one archive for at most a slice, then end it or put it back. Commits; raises Transient."""
    began, began_at = time.monotonic(), time.time()

    def end(*, unpacked: bool, error: errors.Permanent | errors.Transient | None = None) -> None:
        seconds = time.monotonic() - began
        db.transact(runtime.sessions, archive_claims.end, lease, unpacked=unpacked, seconds=seconds, error=error)

    with LeaseRenewal(runtime.sessions, runtime.settings.lease_seconds) as renewal:
        renewal.add(lease.token)
        try:
            whole = _unpack(runtime, lease, renewal, stop)
            end(unpacked=whole)
            if not whole:
                runtime.wakeups.send(Queue.INTAKE)
        except errors.Permanent as err:
            end(unpacked=True, error=err)
            whole = True
        except (LeaseLost, errors.Conflict, errors.NotFound) as err:
            log.info("unpacking of archive %s ended: %s", lease.archive_id, err)
            end(unpacked=False)
            return
        except errors.Transient as err:
            end(unpacked=False, error=err)
            raise
    if whole:
        drop = partial(archives.drop_blob, older_than_seconds=time.time() - began_at)
        db.transact(runtime.sessions, drop, lease.batch_id, lease.sha256, runtime.blobs)


def _unpack(runtime: Runtime, lease: ArchiveLease, renewal: LeaseRenewal, stop: StopRequest) -> bool:
    """Record page after page. Commits each. Return whether all entries are recorded."""
    until = time.monotonic() + archive_claims.SLICE_SECONDS

    def note_progress() -> None:
        renewal.note_progress()
        runtime.heartbeat.note_progress()

    with entries.open_archive(
        runtime.blobs, lease.batch_id, lease.sha256, lease.encoding, runtime.settings, note_progress
    ) as archive:
        next_entry = lease.next_entry
        if next_entry == 0:
            archive.check_count(db.read(runtime.sessions, arrivals.count_room, lease.batch_id, runtime.settings))
        while next_entry < len(archive):
            db.read(runtime.sessions, quotas.check_unpacking, lease.batch_id, runtime.settings)
            with contextlib.ExitStack() as files:
                page = archive.read_page(next_entry, files)
                arrivals.keep(runtime.sessions, runtime.blobs, lease.batch_id, page.arrived, runtime.settings)
                db.transact(runtime.sessions, _record, runtime, lease, page, archive.encoding)
            next_entry = page.next_entry
            note_progress()
            if page.arrived:
                runtime.wakeups.send(Queue.CLASSIFY)
            if stop.requested or time.monotonic() > until:
                break
        return next_entry >= len(archive)


def _record(
    session: Session, runtime: Runtime, lease: ArchiveLease, page: entries.EntryPage, encoding: str | None = None
) -> None:
    """Add a page to the batch and store the position of the next entry. Raises LeaseLost when the lease is lost."""
    archive = archive_claims.lock(session, lease)
    if archive.next_entry >= page.next_entry:
        return  # an earlier attempt was committed although its connection failed
    verdicts = arrivals.receive(
        session,
        lease.batch_id,
        page.arrived,
        runtime.settings,
        refused=page.refused,
        archive_id=lease.archive_id,
    )
    archive.encoding = archive.encoding or encoding
    archive.next_entry = page.next_entry
    archive.entries += page.entries
    archive.received += sum(verdict.error is None and not verdict.unchanged for verdict in verdicts)
    archive.unchanged += sum(verdict.unchanged for verdict in verdicts)
    archive.refused += len(page.refused) + sum(verdict.error is not None for verdict in verdicts)
    archive.skipped += len(page.skipped)
    archive.skipped_names = [*archive.skipped_names, *page.skipped][:_SKIPPED_NAMES_KEPT]
    archive.losses = 0
    archive.error_code = archive.error_detail = None
    archive.touched_at = datetime.now(UTC)
