"""The two Celery tasks, and the start and end of the pool process that runs them.

A message only says "there is work", so a task takes no arguments and returns nothing. What does the work is imported
by the pool process when it starts: its parent only passes messages on, and starts half a second sooner without it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from celery import shared_task, signals

from dermq import errors
from dermq.settings import Settings
from dermq.wakeups import Queue, Task
from worker.process import logs, shutdown

if TYPE_CHECKING:
    from worker.process.runtime import Runtime

log = logging.getLogger(__name__)

UNFIT = 78
"""EX_CONFIG: the exit status of a worker that must not run until somebody mends its bundle."""

FAILED = 1
"""The exit status of a worker that a new one should replace."""
_PAUSE_SECONDS = 2.0

_runtime: Runtime | None = None


@shared_task(name=Task.CLASSIFY)
def classify() -> None:
    """Drain claims for a while; safe to run twice, and safe not to run."""
    from worker.classify import pipeline

    _guarded(pipeline.drain)


@shared_task(name=Task.INTAKE)
def intake() -> None:
    """Unpack archives for a while; safe to run twice, and safe not to run."""
    from worker.intake import unpack

    _guarded(unpack.drain)


@signals.worker_process_init.connect
def start(sender: str, **_: Any) -> None:
    """Build the runtime of a new pool process; a classify process verifies its bundle before it appears."""
    global _runtime
    from worker.classify import pipeline  # noqa: F401 - so that the first task finds it there
    from worker.classify import runtime as classify_runtime
    from worker.intake import runtime as intake_runtime
    from worker.intake import unpack  # noqa: F401 - so that the first task finds it there

    builders = {Queue.CLASSIFY: classify_runtime.build, Queue.INTAKE: intake_runtime.build}
    settings = Settings()
    logs.configure(settings)
    try:
        built: Runtime = builders[Queue(sender.split("@")[0])](settings)
        _appear(built)
    except errors.Unfit as err:
        _leave(settings, err, UNFIT)
    except Exception as err:  # a process's edge: Celery would swallow it and run on without a runtime
        log.exception("this worker could not start")
        _leave(settings, err, FAILED)
    _runtime = built


@signals.worker_process_shutdown.connect
def end(**_: Any) -> None:
    """Remove this process from the workers."""
    if _runtime is not None:
        _runtime.close()


def _appear(built: Runtime) -> None:
    """Load what the program needs and appear among the workers, as soon as the database is there. Raises Unfit."""
    loaded = built.load()
    while True:
        try:
            built.heartbeat.start(loaded)
            return
        except errors.Transient as err:
            if shutdown.flag(built.settings, os.getppid()).exists():
                raise SystemExit(0) from err
            log.warning("waiting %.0f s for the database: %s", _PAUSE_SECONDS, err)
            time.sleep(_PAUSE_SECONDS)


def _guarded(drain: Callable[[Any], None]) -> None:
    """Run a drain with the runtime of its program.

    A process that did not become fit for work, or meets an unexpected error, ends so that a new one can start.
    """
    if _runtime is None:
        _leave(Settings(), RuntimeError("this process never became fit for work"), FAILED)
    try:
        drain(_runtime)
    except errors.Unfit as err:
        _leave(_runtime.settings, err, UNFIT)
    except Exception as err:  # a process's edge; a MemoryError that got out would kill the worker without a word
        log.exception("the drain failed")
        _leave(_runtime.settings, err, FAILED)


def _leave(settings: Settings, err: Exception, status: int) -> NoReturn:
    """End the whole worker: write a note for the parent and stop it, then end this process.

    Celery's signals let only SystemExit out; they swallow any other exception and the worker runs on.
    """
    log.critical("this worker ends with status %d: %s", status, err)
    shutdown.ExitNote(settings, os.getppid()).write(status, str(err))
    os.kill(os.getppid(), signal.SIGTERM)
    raise SystemExit(status)
