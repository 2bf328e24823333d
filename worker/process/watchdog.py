"""The watchdog: a thread of the worker's parent process that ends the worker when it stalls.

The parent process can detect both a hung child and a dead Celery consumer. When work waits and the child makes no
progress, the watchdog first sends a wake-up, since the last one may have been lost. If that does not help, it ends the
worker, and a new one is started. While Redis does not answer, it does neither: a new worker would get no wake-up.
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
"""The number of observations within ``stalled_seconds``."""
_GRACE_SECONDS = 4.0
"""The time that a responsive child has to give back its claims."""


@dataclass(frozen=True)
class Observation:
    """What the watchdog observes at one moment."""

    at: float
    """The time by a monotonic clock, in seconds."""
    waiting: bool
    """Whether this queue has unclaimed work."""
    reachable: bool
    """Whether Redis answers."""
    progressed_seconds: float | None
    """Seconds since the child last made progress; None while the child has no row."""
    loading: bool = False
    """Whether the child is loading a model."""

    @property
    def child(self) -> str:
        """The state of the child, as a clause for the log."""
        if self.progressed_seconds is None:
            return "no child has appeared"
        return f"the child last made progress {self.progressed_seconds:.0f} s ago"


class Action(Enum):
    """What the watchdog does with the worker."""

    NONE = auto()
    WAKE = auto()
    END = auto()


class Watchdog:
    """Decides from observations in time order for how long the child has made no progress without an excuse.

    Excuses are: no work waits, Redis does not answer, or the watchdog itself missed observations.
    """

    def __init__(self, stalled_seconds: float, at: float) -> None:
        self._stalled_seconds = stalled_seconds
        self._observed = self._since = at

    def judge(self, observation: Observation) -> Action:
        """Return what to do with the worker now."""
        # In a gap the watchdog was frozen or had no database, so it does not know what the child did meanwhile.
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
    """Watch this process's worker, and end it with the exit status ``status`` when it stalls.

    ``started`` is the start of the process by a monotonic clock. Returns when the worker is told to stop, because the
    supervisor that stops it has its own time limit.
    """
    observer = Observer(settings, queue, started)
    watchdog = Watchdog(settings.stalled_seconds, time.monotonic())
    flag = shutdown.find_flag(settings, os.getpid())
    reachable = True
    while True:
        time.sleep(settings.stalled_seconds / OBSERVATIONS)
        if flag.exists():
            observer.close()
            return
        try:
            observation = observer.observe()
        except Exception as err:  # the thread must outlive every error; without the database there is no observation
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
        """The start of this worker by the database's clock. Read once; it differs from the local monotonic clock."""

    def close(self) -> None:
        """Close the connections to the database."""
        self._sessions.close()

    def observe(self) -> Observation:
        """Return one observation: whether work waits, Redis answers, and the child makes progress."""
        waiting, pulses = db.read(self._sessions, self._read)
        return Observation(
            at=time.monotonic(),
            waiting=waiting,
            reachable=self.wakeups.is_reachable(),
            progressed_seconds=min((pulse.progressed_seconds for pulse in pulses), default=None),
            loading=any(pulse.loading for pulse in pulses),
        )

    def _read(self, session: Session) -> tuple[bool, list[liveness.Pulse]]:
        names = [heartbeat.make_name(self._queue, child.pid) for child in active_children()]
        if self._since is None:
            self._since = session.scalars(sa.select(db.now(self._started - time.monotonic()))).one()
        # An older row belongs to an earlier process with the same pid.
        pulses = liveness.list_pulses(session, Worker.name.in_(names), Worker.started_at > self._since)
        return liveness.measure_waited_seconds(session, self._queue) is not None, pulses


def _end(settings: Settings, status: int, reason: str) -> NoReturn:
    """End this worker from a thread, even when its main thread and its child hang."""
    log.critical("this worker ends with status %d: %s", status, reason)
    note = shutdown.ExitNote(settings, os.getpid())
    note.write(status, reason)
    os.kill(os.getpid(), signal.SIGTERM)  # a warm shutdown, if the main thread and the child still respond
    time.sleep(_GRACE_SECONDS)
    for child in active_children():  # on Linux, children die with this process; on macOS, they do not
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    shutdown.find_flag(settings, os.getpid()).unlink(missing_ok=True)
    note.take()
    os._exit(status)
