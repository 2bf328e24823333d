"""The reaper: repairs what failed or killed programs left unfinished. A plain loop, without Celery and Redis.

Each duty runs in its own short transactions. A duty that fails is logged and tried again in the next round.
"""

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import archives, batches, conservation, db, deletion, errors, storage, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Worker
from dermq.principals import REAPER
from dermq.queue import claims
from dermq.queue.active import WAITING_ARCHIVES
from dermq.settings import Settings
from dermq.storage import BlobStore
from dermq.wakeups import Queue, Wakeups

log = logging.getLogger(__name__)

_EXPIRED_PAGE = 100
_ABANDONED_MINUTES = 10
"""The upload of an archive counts as abandoned when no bytes have arrived for this long."""
_INCOMING_HOURS = 24
"""An incoming file counts as abandoned when it is this old."""
_ORPHAN_HOURS = 1
"""A file without a row is not removed before this age, because its row may still be committed. Longer than
``arrivals.KEPT_SECONDS``."""
_ORPHAN_PAGE = 500
_WORKER_HOURS = 1
_CHECKED_BATCHES = 20
_CHECK_SECONDS = 0.5
"""A round checks at most ``_CHECKED_BATCHES``, and starts no further check after ``_CHECK_SECONDS``."""


def run(settings: Settings) -> None:
    """Run the reaper's rounds until SIGTERM or SIGINT."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    reaper = Reaper(settings, db.Sessions(settings.database), storage.build(settings), Wakeups(settings))
    log.info("reaping every %g s", settings.reaper_seconds)
    while True:
        reaper.run_round()
        if ended.wait(settings.reaper_seconds):
            return


class Reaper:
    """Runs the duties, round after round; two reapers may run at the same time."""

    def __init__(self, settings: Settings, sessions: db.Sessions, blobs: BlobStore, wakeups: Wakeups) -> None:
        self._settings = settings
        self._sessions = sessions
        self._blobs = blobs
        self._wakeups = wakeups
        self._checked = uuid.UUID(int=0)
        self._answered = True

    def run_round(self) -> None:
        """Do every duty once, unless another reaper is in its round. Duties commit."""
        duties: tuple[Callable[[], None], ...] = (
            self.expire_leases,
            self.finish_cancels,
            self.finish_deletes,
            self.seal_idle_batches,
            self.close_abandoned_archives,
            self.wake,
            self.retire,
            self.remove_orphan_blobs,
            self.forget_workers,
            self.check_conservation,
        )
        try:
            with db.try_lock(self._sessions, "reaper") as alone:
                for duty in duties if alone else ():
                    self._guard(duty, duty.__name__)
        except (SQLAlchemyError, OSError) as err:
            self._answered = False
            log.warning("this round is skipped: %s", err)

    def expire_leases(self) -> None:
        """Queue the images of expired claims again.

        The first round after the database was unreachable expires nothing: workers that are alive could not renew
        their leases either, and do so now.
        """
        answered, self._answered = self._answered, False
        expired = db.read(self._sessions, claims.list_expired, _EXPIRED_PAGE)
        self._answered = True
        self._do_each(expired if answered else (), self._expire)

    def finish_cancels(self) -> None:
        """Sweep cancelled batches whose sweep did not finish."""
        self._do_each(self._list_batches(Batch.cancelled_at.is_not(None), Batch.finished_at.is_(None)), self._sweep)

    def finish_deletes(self) -> None:
        """Remove the remaining rows and files of deleted batches."""
        self._do_each(self._list_batches(Batch.deleted_at.is_not(None)), self._purge)

    def seal_idle_batches(self) -> None:
        """Seal open batches to which nothing was added for ``idle_seal_seconds``."""
        idle = datetime.now(UTC) - timedelta(seconds=self._settings.idle_seal_seconds)
        found = self._list_batches(Batch.sealed_at.is_(None), Batch.touched_at < idle, Batch.deleted_at.is_(None))
        self._do_each(found, partial(self._seal, idle))

    def close_abandoned_archives(self) -> None:
        """Close archives whose upload was abandoned, for example because the web process died."""
        limit = datetime.now(UTC) - timedelta(minutes=_ABANDONED_MINUTES)
        abandoned = sa.select(Archive.id).where(Archive.state == ArchiveState.RECEIVING, Archive.touched_at < limit)
        self._do_each(db.read(self._sessions, lambda session: list(session.scalars(abandoned))), self._abandon)

    def wake(self) -> None:
        """Wake the workers of every queue that has waiting work."""
        if db.read(self._sessions, claims.list_waiting_bundles):
            self._wakeups.send(Queue.CLASSIFY)
        stored = (
            sa.select(Archive.id).join(Batch).where(Archive.state == ArchiveState.STORED, *WAITING_ARCHIVES).limit(1)
        )
        if db.read(self._sessions, lambda session: session.scalar(stored)) is not None:
            self._wakeups.send(Queue.INTAKE)

    def retire(self) -> None:
        """Mark batches as deleted that finished more than ``retention_days`` ago; the next round removes them."""
        if self._settings.retention_days:
            limit = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
            old = self._list_batches(Batch.finished_at < limit, Batch.deleted_at.is_(None))
            self._do_each(old, partial(self._mark_deleted, limit))

    def remove_orphan_blobs(self) -> None:
        """Remove blobs without a batch, and abandoned incoming files."""
        self._blobs.delete_stale_incoming(older_than_seconds=_INCOMING_HOURS * 3600)
        folders = self._blobs.list_batches(older_than_seconds=_ORPHAN_HOURS * 3600)
        for at in range(0, len(folders), _ORPHAN_PAGE):
            page = folders[at : at + _ORPHAN_PAGE]
            for batch_id in set(page) - set(self._list_batches(Batch.id.in_(page))):
                log.warning("removing the blobs of batch %s: the batch has no row", batch_id)
                self._blobs.delete_batch(batch_id)

    def check_conservation(self) -> None:
        """Check the next few batches, and remove their files that no row needs."""
        found = db.read(self._sessions, conservation.list_next_batches, self._checked, _CHECKED_BATCHES)
        until = time.monotonic() + _CHECK_SECONDS
        for self._checked in found:  # when a check fails, the next round goes on after that batch
            self._check(self._checked)
            if time.monotonic() > until:
                return
        if len(found) < _CHECKED_BATCHES:
            self._checked = uuid.UUID(int=0)

    def forget_workers(self) -> None:
        """Delete the rows of workers without a heartbeat for ``_WORKER_HOURS``."""
        gone = sa.delete(Worker).where(Worker.seen_at < db.now(-_WORKER_HOURS * 3600))
        db.transact(self._sessions, lambda session: session.execute(gone))

    def _expire(self, token: uuid.UUID) -> None:
        try:
            expired = db.transact(self._sessions, claims.expire, token)
        except errors.Transient:
            self._answered = False
            raise
        if expired:
            log.warning("the lease of claim %s expired; its images are queued again", token)

    def _sweep(self, batch_id: uuid.UUID) -> None:
        db.transact(self._sessions, batches.sweep, batch_id)

    def _purge(self, batch_id: uuid.UUID) -> None:
        deletion.purge(self._sessions, self._blobs, batch_id)

    def _seal(self, idle: datetime, batch_id: uuid.UUID) -> None:
        try:
            if db.transact(self._sessions, batches.seal_idle, batch_id, by=REAPER, untouched_since=idle):
                log.info("sealed idle batch %s", batch_id)
        except (errors.Conflict, errors.NotFound) as err:
            log.info("idle batch %s is not sealed: %s", batch_id, err)

    def _abandon(self, archive_id: uuid.UUID) -> None:
        error = errors.Conflict("upload_abandoned", "The upload ended before the archive was whole; send it again.")
        db.transact(self._sessions, archives.abandon, archive_id, error)

    def _mark_deleted(self, limit: datetime, batch_id: uuid.UUID) -> None:
        db.transact(self._sessions, batches.mark_deleted, batch_id, by=REAPER, finished_before=limit)

    def _check(self, batch_id: uuid.UUID) -> None:
        audit = conservation.audit(self._sessions, self._blobs, batch_id)
        for finding in audit.findings:
            log.error("batch %s is in breach (%s): %s", batch_id, finding.breach, finding.detail)
        db.transact(self._sessions, conservation.mark, batch_id, breached=bool(audit.findings))
        if audit.unneeded:
            self._collect(batch_id, audit.unneeded)

    def _collect(self, batch_id: uuid.UUID, unneeded: frozenset[str]) -> None:
        old = self._blobs.list(batch_id, older_than_seconds=_ORPHAN_HOURS * 3600)
        orphans = [name for name in old if name in unneeded]
        for at in range(0, len(orphans), _ORPHAN_PAGE):
            page = orphans[at : at + _ORPHAN_PAGE]
            removed = db.transact(self._sessions, self._remove_orphans, batch_id, page)
            log.info("removed %d files of batch %s that no row needs", removed, batch_id)

    def _remove_orphans(self, session: Session, batch_id: uuid.UUID, names: list[str]) -> int:
        """Remove the files that no row needs, while the batch is locked; return how many. Uploads take the same lock.

        An upload keeps its file before it takes the lock, so files younger than ``_ORPHAN_HOURS`` are not removed.
        """
        if not transitions.lock_batches(session, [batch_id]):
            return 0
        orphans = set(names) - conservation.list_needed(session, batch_id, names)
        for name in orphans:
            self._blobs.delete(batch_id, name, older_than_seconds=_ORPHAN_HOURS * 3600)
        return len(orphans)

    def _list_batches(self, *where: sa.ColumnElement[bool]) -> list[uuid.UUID]:
        wanted = sa.select(Batch.id).where(*where).order_by(Batch.id)
        return db.read(self._sessions, lambda session: list(session.scalars(wanted)))

    def _do_each(self, ids: Iterable[uuid.UUID], work: Callable[[uuid.UUID], None]) -> None:
        """Call ``work`` for each id; when one fails, the others are still done."""
        for each in ids:
            self._guard(partial(work, each), f"{work} of {each}")

    def _guard(self, duty: Callable[[], None], name: str) -> None:
        try:
            duty()
        except Exception:  # the loop must go on after every error; the next round tries again
            log.exception("%s failed", name)
