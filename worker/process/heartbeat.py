"""A worker's row in SQL: that it lives, what it has loaded, when it last made progress. ``dermq.liveness`` reads it."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Worker
from dermq.wakeups import Queue

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """The names of what a worker has loaded."""

    bundle: str
    engine: str


def name(queue: Queue, pid: int) -> str:
    """Return the name of the worker that is the pool process ``pid`` of this host."""
    return f"{socket.gethostname()}:{queue}:{pid}"


class Heartbeat:
    """Writes from a thread, every few seconds, that this process lives."""

    def __init__(self, sessions: db.Sessions, name: str, queue: str, every_seconds: float) -> None:
        self.name = name
        self._sessions = sessions
        self._queue = queue
        self._every_seconds = every_seconds
        self._loaded: Loaded | None = None
        self._progressed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, loaded: Loaded | None = None) -> None:
        """Insert the worker's row, with what is ``loaded``, and keep it fresh. Commits; raises Transient."""
        self.show_loaded(loaded)
        db.transact(self._sessions, self._insert)
        self._thread.start()

    def progress(self) -> None:
        """Note that the drain made progress, or found nothing that it can claim; the next heartbeat writes it."""
        self._progressed = time.monotonic()

    def show_loaded(self, loaded: Loaded | None) -> None:
        """Show what is loaded from the next heartbeat on; None while that changes. Counts as progress."""
        self._loaded = loaded
        self.progress()

    def stop(self) -> None:
        """End the thread and delete the worker's row. Commits."""
        self._ended.set()
        self._thread.join()
        self._write(lambda session: session.execute(sa.delete(Worker).where(Worker.name == self.name)))

    def _run(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._write(self._update)

    def _values(self) -> dict[str, object]:
        loaded = self._loaded
        return {
            "bundle": loaded.bundle if loaded else None,
            "engine": loaded.engine if loaded else None,
            "seen_at": db.now(),
            "progressed_at": db.now(self._progressed - time.monotonic()),
        }

    def _update(self, session: Session) -> None:
        """Update the worker's row; insert it again when it was deleted as one of a dead process."""
        own = sa.update(Worker).where(Worker.name == self.name).values(self._values()).returning(Worker.name)
        if session.execute(own).scalar_one_or_none() is None:
            self._insert(session)

    def _insert(self, session: Session) -> None:
        session.execute(sa.delete(Worker).where(Worker.name == self.name))
        session.execute(
            sa.insert(Worker).values(name=self.name, queue=self._queue, started_at=db.now(), **self._values())
        )

    def _write(self, work: Callable[[Session], object]) -> None:
        try:
            db.transact(self._sessions, work)
        except (errors.Transient, SQLAlchemyError) as err:
            log.warning("the worker's row could not be written: %s", err)
