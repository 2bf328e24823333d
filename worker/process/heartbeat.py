"""A worker's row in SQL: that it lives, what it has loaded, when it last got on. ``dermq.liveness`` reads it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Worker
from dermq.wakeups import Queue

if TYPE_CHECKING:
    from worker.classify.model import Model

log = logging.getLogger(__name__)


def name(queue: Queue, pid: int) -> str:
    """What the pool process ``pid`` of this host is called."""
    return f"{socket.gethostname()}:{queue}:{pid}"


class Heartbeat:
    """Says every few seconds that this process lives, from a thread."""

    def __init__(self, sessions: db.Sessions, name: str, queue: str, every_seconds: float) -> None:
        self.name = name
        self._sessions = sessions
        self._queue = queue
        self._every_seconds = every_seconds
        self._model: Model | None = None
        self._progressed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, model: Model | None = None) -> None:
        """Appear, and go on saying so."""
        self.hold(model)
        db.transact(self._sessions, self._appear)
        self._thread.start()

    def progress(self) -> None:
        """The drain got on, or found nothing that it can claim; written with the next sign of life."""
        self._progressed = time.monotonic()

    def hold(self, model: Model | None) -> None:
        """Say what is loaded; None while that changes."""
        self._model = model
        self.progress()

    def stop(self) -> None:
        """Disappear."""
        self._ended.set()
        self._thread.join()
        self._write(lambda session: session.execute(sa.delete(Worker).where(Worker.name == self.name)))

    def _run(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._write(self._live)

    def _signs(self) -> dict[str, object]:
        model = self._model
        return {
            "bundle": model.bundle.name if model else None,
            "engine": model.engine.name if model else None,
            "seen_at": db.now(),
            "progressed_at": db.now(self._progressed - time.monotonic()),
        }

    def _live(self, session: Session) -> None:
        """Say so; or appear again, when the row was taken for one of a process that is long dead."""
        own = sa.update(Worker).where(Worker.name == self.name).values(self._signs()).returning(Worker.name)
        if session.execute(own).scalar_one_or_none() is None:
            self._appear(session)

    def _appear(self, session: Session) -> None:
        session.execute(sa.delete(Worker).where(Worker.name == self.name))
        session.execute(
            sa.insert(Worker).values(name=self.name, queue=self._queue, started_at=db.now(), **self._signs())
        )

    def _write(self, work: Callable[[Session], object]) -> None:
        try:
            db.transact(self._sessions, work)
        except (errors.Transient, SQLAlchemyError) as err:
            log.warning("the worker's row could not be written: %s", err)
