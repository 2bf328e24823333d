"""A worker's row in SQL: that it lives, what it has loaded, when it last got on. ``/health/ready`` reads it."""

import logging
import threading
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Worker

log = logging.getLogger(__name__)


class Presence:
    """Says every few seconds that this process lives, from a thread."""

    def __init__(self, sessions: db.Sessions, name: str, queue: str, every_seconds: float) -> None:
        self.name = name
        self._sessions = sessions
        self._queue = queue
        self._every_seconds = every_seconds
        self._progressed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self, *, bundle: str | None = None, engine: str | None = None) -> None:
        """Appear, and go on saying so."""
        row = {"queue": self._queue, "bundle": bundle, "engine": engine}
        db.transact(self._sessions, _appear, self.name, row)
        self._thread.start()

    def progress(self) -> None:
        """Note that work got done; written with the next sign of life."""
        self._progressed = True

    def stop(self) -> None:
        """Disappear."""
        self._ended.set()
        self._thread.join()
        self._write(sa.delete(Worker).where(Worker.name == self.name))

    def _run(self) -> None:
        while not self._ended.wait(self._every_seconds):
            values: dict[str, Any] = {"seen_at": db.now()}
            if self._progressed:
                self._progressed = False
                values["progressed_at"] = db.now()
            self._write(sa.update(Worker).where(Worker.name == self.name).values(**values))

    def _write(self, statement: sa.Executable) -> None:
        try:
            db.transact(self._sessions, lambda session: session.execute(statement))
        except (errors.Transient, SQLAlchemyError) as err:
            log.warning("the worker's row could not be written: %s", err)


def _appear(session: Session, name: str, row: dict[str, Any]) -> None:
    session.execute(sa.delete(Worker).where(Worker.name == name))
    session.execute(
        sa.insert(Worker).values(name=name, started_at=db.now(), seen_at=db.now(), progressed_at=db.now(), **row)
    )
