"""Writes a worker's row in SQL: last seen, loaded model, last progress. ``dermq.liveness`` reads the row."""

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
    """The names of the bundle and the engine that a worker has loaded."""

    bundle: str
    engine: str


def make_name(queue: Queue, pid: int) -> str:
    """Return the name of the worker whose pool process has the id ``pid`` on this host."""
    return f"{socket.gethostname()}:{queue}:{pid}"


class Heartbeat:
    """Updates the worker's row from a thread every few seconds."""

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
        """Insert the worker's row with ``loaded``, and start the thread that updates it. Commits; raises Transient."""
        self.show_loaded(loaded)
        db.transact(self._sessions, self._insert)
        self._thread.start()

    def note_progress(self) -> None:
        """Note that the drain made progress or found nothing to claim. The next heartbeat writes the time."""
        self._progressed = time.monotonic()

    def show_loaded(self, loaded: Loaded | None) -> None:
        """Set what the next heartbeats show as loaded; None while a model is being loaded. Counts as progress."""
        self._loaded = loaded
        self.note_progress()

    def stop(self) -> None:
        """End the thread and delete the worker's row. Commits."""
        self._ended.set()
        self._thread.join()
        self._write(lambda session: session.execute(sa.delete(Worker).where(Worker.name == self.name)))

    def _run(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._write(self._update)

    def _list_values(self) -> dict[str, object]:
        loaded = self._loaded
        return {
            "bundle": loaded.bundle if loaded else None,
            "engine": loaded.engine if loaded else None,
            "seen_at": db.now(),
            "progressed_at": db.now(self._progressed - time.monotonic()),
        }

    def _update(self, session: Session) -> None:
        """Update the worker's row, or insert it again when the reaper has deleted it as a dead worker's row."""
        own = sa.update(Worker).where(Worker.name == self.name).values(self._list_values()).returning(Worker.name)
        if session.execute(own).scalar_one_or_none() is None:
            self._insert(session)

    def _insert(self, session: Session) -> None:
        session.execute(sa.delete(Worker).where(Worker.name == self.name))
        session.execute(
            sa.insert(Worker).values(name=self.name, queue=self._queue, started_at=db.now(), **self._list_values())
        )

    def _write(self, work: Callable[[Session], object]) -> None:
        try:
            db.transact(self._sessions, work)
        except (errors.Transient, SQLAlchemyError) as err:
            log.warning("the worker's row could not be written: %s", err)
