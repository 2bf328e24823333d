"""The reaper: mends what others left. A plain loop that needs neither Celery nor Redis, safe to run twice.

Each duty is its own short transactions; one that fails is logged and tried again in the next round.
"""

import logging
import signal
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dermq import archives, batches, db, errors
from dermq.blobs import Blobs
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Worker
from dermq.queue import Queue, Wakeups
from dermq.settings import Settings
from worker import claims

log = logging.getLogger(__name__)

_EXPIRED_PAGE = 100
_ABANDONED_MINUTES = 10
"""An upload of an archive that brought nothing for this long has died."""
_INCOMING_HOURS = 24
"""Incoming files are this old before they count as left by a program that died."""
_ORPHAN_HOURS = 1
"""A folder of blobs without a batch is left alone for this long: its batch may be about to be committed."""
_WORKER_HOURS = 1


def run(settings: Settings) -> None:
    """Reap until SIGTERM or SIGINT."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    reaper = Reaper(settings, db.Sessions(settings.database), Blobs(settings.blobs), Wakeups(settings))
    log.info("reaping every %g s", settings.reaper_seconds)
    while True:
        reaper.round()
        if ended.wait(settings.reaper_seconds):
            return


class Reaper:
    """One round of duties after the other."""

    def __init__(self, settings: Settings, sessions: db.Sessions, blobs: Blobs, wakeups: Wakeups) -> None:
        self._settings = settings
        self._sessions = sessions
        self._blobs = blobs
        self._wakeups = wakeups

    def round(self) -> None:
        """Do every duty once, unless another reaper is at it."""
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
        )
        try:
            with db.single_flight(self._sessions, "reaper") as alone:
                for duty in duties if alone else ():
                    self._guarded(duty)
        except (SQLAlchemyError, OSError) as err:
            log.warning("no round this time: %s", err)

    def expire_leases(self) -> None:
        """Give back what lost workers held."""
        for token in db.read(self._sessions, claims.expired, _EXPIRED_PAGE):
            if db.transact(self._sessions, claims.expire, token):
                log.warning("the lease of claim %s ran out; its images are queued again", token)

    def finish_cancels(self) -> None:
        """Sweep cancelled batches whose canceller did not get that far."""
        for batch_id in self._batches(Batch.cancelled_at.is_not(None), Batch.finished_at.is_(None)):
            db.transact(self._sessions, batches.sweep, batch_id)

    def finish_deletes(self) -> None:
        """Remove what is left of deleted batches."""
        for batch_id in self._batches(Batch.deleted_at.is_not(None)):
            db.transact(self._sessions, batches.sweep, batch_id)
            while db.transact(self._sessions, batches.purge_page, batch_id):
                pass
            self._blobs.delete(batch_id)

    def seal_idle_batches(self) -> None:
        """Seal open batches that nobody has added to for a while."""
        idle = datetime.now(UTC) - timedelta(seconds=self._settings.idle_seal_seconds)
        for batch_id in self._batches(Batch.sealed_at.is_(None), Batch.touched_at < idle, Batch.deleted_at.is_(None)):
            try:
                db.transact(self._sessions, batches.seal, batch_id)
                log.info("batch %s was idle and is sealed", batch_id)
            except (errors.Conflict, errors.NotFound) as err:
                log.info("idle batch %s is not sealed: %s", batch_id, err)

    def close_abandoned_archives(self) -> None:
        """Close archives whose upload died with its web process."""
        limit = datetime.now(UTC) - timedelta(minutes=_ABANDONED_MINUTES)
        abandoned = sa.select(Archive.id).where(Archive.state == ArchiveState.RECEIVING, Archive.touched_at < limit)
        error = errors.Conflict("upload_abandoned", "The upload ended before the archive was whole; send it again.")
        for archive_id in db.read(self._sessions, lambda session: session.scalars(abandoned).all()):
            db.transact(self._sessions, archives.abandon, archive_id, error)

    def wake(self) -> None:
        """Wake the workers of every queue that has waiting work."""
        if db.read(self._sessions, claims.waiting_bundles):
            self._wakeups.send(Queue.CLASSIFY)
        stored = sa.select(Archive.id).where(Archive.state == ArchiveState.STORED).limit(1)
        if db.read(self._sessions, lambda session: session.scalar(stored)) is not None:
            self._wakeups.send(Queue.INTAKE)

    def retire(self) -> None:
        """Delete batches that ended longer ago than they are kept; ``finish_deletes`` removes them next round."""
        if self._settings.retention_days:
            limit = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
            for batch_id in self._batches(Batch.finished_at < limit, Batch.deleted_at.is_(None)):
                db.transact(self._sessions, batches.mark_deleted, batch_id)

    def remove_orphan_blobs(self) -> None:
        """Remove blobs that no batch owns and incoming files that nobody writes."""
        self._blobs.delete_stale_incoming(older_than_seconds=_INCOMING_HOURS * 3600)
        for batch_id in self._blobs.batches(older_than_seconds=_ORPHAN_HOURS * 3600):
            if not self._batches(Batch.id == batch_id):
                log.warning("the blobs of batch %s have no batch and are removed", batch_id)
                self._blobs.delete(batch_id)

    def forget_workers(self) -> None:
        """Remove the rows of workers that were killed long ago."""
        gone = sa.delete(Worker).where(Worker.seen_at < db.now(-_WORKER_HOURS * 3600))
        db.transact(self._sessions, lambda session: session.execute(gone))

    def _batches(self, *where: sa.ColumnElement[bool]) -> list[uuid.UUID]:
        wanted = sa.select(Batch.id).where(*where).order_by(Batch.id)
        return db.read(self._sessions, lambda session: list(session.scalars(wanted)))

    def _guarded(self, duty: Callable[[], None]) -> None:
        try:
            duty()
        except Exception:  # a process's edge: the next round tries again
            log.exception("%s failed", duty.__name__)
