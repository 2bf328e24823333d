"""The watch of a worker over itself, from its parent process, where a dead consumer and a hung child can be noticed.

Work that waits while the child does not get on is first answered with a wake-up of our own, so that a lost one costs no
worker; then the worker ends, for a new one to be started. While Redis does not answer, a new one would help nobody.
"""

import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import NoReturn

import sqlalchemy as sa
from billiard import active_children
from sqlalchemy.orm import Session

from dermq import db, liveness
from dermq.models import Worker
from dermq.settings import Settings
from dermq.wakeups import Queue, Wakeups
from worker.celery_app import START_SECONDS
from worker.process import heartbeat, shutdown

log = logging.getLogger(__name__)

LOOKS = 10
"""Looks within the time after which a worker counts as stalled."""
_GRACE_SECONDS = 4.0
"""In which a child that can still listen gives back what it holds."""


@dataclass(frozen=True)
class Observation:
    """What one look saw."""

    at: float
    """By a monotonic clock, in seconds."""
    waiting: bool
    """There is work of this queue that nobody has claimed."""
    reachable: bool
    """Redis answers."""
    progressed_seconds: float | None
    """Since the child last got on; None while none has appeared."""
    loading: bool = False
    """The child changes its model."""

    @property
    def child(self) -> str:
        if self.progressed_seconds is None:
            return "no child has appeared"
        return f"the child last got on {self.progressed_seconds:.0f} s ago"


class Action(Enum):
    NONE = auto()
    WAKE = auto()
    END = auto()


class Watchdog:
    """Judges sights in their order: since when has nothing excused that the child does not get on?"""

    def __init__(self, stalled_seconds: float, at: float) -> None:
        self._stalled_seconds = stalled_seconds
        self._looked = self._since = at

    def judge(self, sight: Observation) -> Action:
        """What to do about the worker now."""
        blind = sight.at - self._looked > self._stalled_seconds / 2  # it was frozen itself, or had no database
        self._looked = sight.at
        if blind or not sight.waiting or not sight.reachable:
            self._since = sight.at
        elif sight.progressed_seconds is not None:
            self._since = max(self._since, sight.at - sight.progressed_seconds)
        idle_seconds = sight.at - self._since
        starting = sight.loading or sight.progressed_seconds is None
        if idle_seconds >= (START_SECONDS if starting else self._stalled_seconds):
            return Action.END
        return Action.WAKE if idle_seconds >= self._stalled_seconds / 2 else Action.NONE


def keep(settings: Settings, queue: Queue, started: float, status: int) -> None:
    """Watch the worker that this process, ``started`` by a monotonic clock, is; end it with ``status`` when it stalls.

    Returns when the worker is told to stop: who tells it has limits of his own.
    """
    eyes = Observer(settings, queue, started)
    patience = Watchdog(settings.stalled_seconds, time.monotonic())
    flag = shutdown.flag(settings, os.getpid())
    reachable = True
    while True:
        time.sleep(settings.stalled_seconds / LOOKS)
        if flag.exists():
            eyes.close()
            return
        try:
            sight = eyes.look()
        except Exception as err:  # a thread's edge: without the database nothing is known
            log.warning("the watch over this worker sees nothing: %s", err)
            continue
        if sight.reachable is not reachable:
            reachable = sight.reachable
            log.warning("Redis %s", "answers again" if reachable else "does not answer, so no wake-up arrives")
        verdict = patience.judge(sight)
        if verdict is Action.WAKE:
            eyes.wakeups.send(queue)
        elif verdict is Action.END:
            _end(settings, status, f"stalled: work waits in {queue}, Redis answers, and {sight.child}")


class Observer:
    """Look at the rows and at Redis."""

    def __init__(self, settings: Settings, queue: Queue, started: float) -> None:
        self.wakeups = Wakeups(settings)
        self._sessions = db.Sessions(settings.database, pool_size=1)
        self._queue = queue
        self._started = started
        self._since: datetime | None = None
        """When this worker started, by the database's clock, which may be set and goes on while a machine sleeps."""

    def close(self) -> None:
        self._sessions.close()

    def look(self) -> Observation:
        """See whether work waits, and what our child does about it."""
        waiting, pulses = db.read(self._sessions, self._read)
        return Observation(
            at=time.monotonic(),
            waiting=waiting,
            reachable=self.wakeups.reachable(),
            progressed_seconds=min((pulse.progressed_seconds for pulse in pulses), default=None),
            loading=any(pulse.loading for pulse in pulses),
        )

    def _read(self, session: Session) -> tuple[bool, list[liveness.Pulse]]:
        names = [heartbeat.name(self._queue, child.pid) for child in active_children()]
        if self._since is None:
            self._since = session.scalars(sa.select(db.now(self._started - time.monotonic()))).one()
        # An older row is of a process that had the pid before.
        pulses = liveness.pulses(session, Worker.name.in_(names), Worker.started_at > self._since)
        return liveness.waited_seconds(session, self._queue) is not None, pulses


def _end(settings: Settings, status: int, reason: str) -> NoReturn:
    """End this worker from a thread, whatever its main thread and its child do."""
    log.critical("this worker ends with status %d: %s", status, reason)
    note = shutdown.Note(settings, os.getpid())
    note.leave(status, reason)
    os.kill(os.getpid(), signal.SIGTERM)  # the main thread ends the worker as usual, if it and the child still can
    time.sleep(_GRACE_SECONDS)
    for child in active_children():  # on Linux they would die with this process anyway, on macOS they would not
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    shutdown.flag(settings, os.getpid()).unlink(missing_ok=True)
    note.take()
    os._exit(status)
