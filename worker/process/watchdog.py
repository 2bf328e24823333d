"""Ends a worker that stalls, from its parent process, where a dead consumer and a hung child can be noticed.

When work waits and the child makes no progress, the watchdog first sends a wake-up itself, so that a lost wake-up costs
no worker. If that does not help, it ends the worker, and a new one is started. While Redis does not answer it does
neither: a new worker would receive no wake-up.
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
from worker.process import heartbeat, shutdown
from worker.process.celery_app import START_SECONDS

log = logging.getLogger(__name__)

OBSERVATIONS = 10
"""Observations within the time after which a worker counts as stalled."""
_GRACE_SECONDS = 4.0
"""The time in which a child that still reacts gives back what it holds."""


@dataclass(frozen=True)
class Observation:
    """What the watchdog knows at one moment."""

    at: float
    """By a monotonic clock, in seconds."""
    waiting: bool
    """There is work of this queue that nobody has claimed."""
    reachable: bool
    """Redis answers."""
    progressed_seconds: float | None
    """Since the child last made progress; None while no child has appeared."""
    loading: bool = False
    """The child changes its model."""

    @property
    def child(self) -> str:
        """What the log says of the child."""
        if self.progressed_seconds is None:
            return "no child has appeared"
        return f"the child last made progress {self.progressed_seconds:.0f} s ago"


class Action(Enum):
    """What to do about the worker."""

    NONE = auto()
    WAKE = auto()
    END = auto()


class Watchdog:
    """Decides by observations in their order: for how long has nothing excused that the child makes no progress?"""

    def __init__(self, stalled_seconds: float, at: float) -> None:
        self._stalled_seconds = stalled_seconds
        self._observed = self._since = at

    def judge(self, observation: Observation) -> Action:
        """Return what to do about the worker now."""
        # After a gap the watchdog itself was frozen, or had no database: it cannot know what happened meanwhile.
        gap = observation.at - self._observed > self._stalled_seconds / 2
        self._observed = observation.at
        if gap or not observation.waiting or not observation.reachable:
            self._since = observation.at
        elif observation.progressed_seconds is not None:
            self._since = max(self._since, observation.at - observation.progressed_seconds)
        idle_seconds = observation.at - self._since
        starting = observation.loading or observation.progressed_seconds is None
        if idle_seconds >= (START_SECONDS if starting else self._stalled_seconds):
            return Action.END
        return Action.WAKE if idle_seconds >= self._stalled_seconds / 2 else Action.NONE


def run(settings: Settings, queue: Queue, started: float, status: int) -> None:
    """Watch the worker that this process is, and end it with ``status`` when it stalls.

    ``started`` is when the process started, by a monotonic clock. Returns when the worker is told to stop: whoever
    stops it has a time limit of its own.
    """
    observer = Observer(settings, queue, started)
    watchdog = Watchdog(settings.stalled_seconds, time.monotonic())
    flag = shutdown.flag(settings, os.getpid())
    reachable = True
    while True:
        time.sleep(settings.stalled_seconds / OBSERVATIONS)
        if flag.exists():
            observer.close()
            return
        try:
            observation = observer.observe()
        except Exception as err:  # a thread's edge: without the database nothing is known
            log.warning("the watchdog of this worker cannot observe it: %s", err)
            continue
        if observation.reachable is not reachable:
            reachable = observation.reachable
            log.warning("Redis %s", "answers again" if reachable else "does not answer, so no wake-up arrives")
        action = watchdog.judge(observation)
        if action is Action.WAKE:
            observer.wakeups.send(queue)
        elif action is Action.END:
            _end(settings, status, f"stalled: work waits in {queue}, Redis answers, and {observation.child}")


class Observer:
    """Reads what the watchdog needs from the database and from Redis."""

    def __init__(self, settings: Settings, queue: Queue, started: float) -> None:
        self.wakeups = Wakeups(settings)
        self._sessions = db.Sessions(settings.database, pool_size=1)
        self._queue = queue
        self._started = started
        self._since: datetime | None = None
        """When this worker started, by the database's clock, which may be set and goes on while a machine sleeps."""

    def close(self) -> None:
        """Close the connections to the database."""
        self._sessions.close()

    def observe(self) -> Observation:
        """Return whether work waits, and what our child does about it."""
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
    note = shutdown.ExitNote(settings, os.getpid())
    note.write(status, reason)
    os.kill(os.getpid(), signal.SIGTERM)  # the main thread ends the worker as usual, if it and the child still can
    time.sleep(_GRACE_SECONDS)
    for child in active_children():  # on Linux they would die with this process anyway, on macOS they would not
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    shutdown.flag(settings, os.getpid()).unlink(missing_ok=True)
    note.take()
    os._exit(status)
