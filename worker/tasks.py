"""The two Celery tasks, and the start and the end of the pool process that runs them.

A message is only a wake-up, so a task takes no arguments and returns nothing. Only the pool process imports the modules
that do the work: without them, the parent process, which only delivers messages, starts half a second faster.
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
"""EX_CONFIG: the exit status of a worker that must not run again before an operator repairs its bundle."""

FAILED = 1
"""The exit status of a worker that failed, so that a new one replaces it."""
_PAUSE_SECONDS = 2.0

_runtime: Runtime | None = None


@shared_task(name=Task.CLASSIFY)
def classify() -> None:
    """Drain claims for a while; safe to run twice, and safe not to run."""
    from worker.classify import pipeline

    _guard(pipeline.drain)


@shared_task(name=Task.INTAKE)
def intake() -> None:
    """Unpack archives for a while; safe to run twice, and safe not to run."""
    from worker.intake import unpack

    _guard(unpack.drain)


@signals.worker_process_init.connect
def start(sender: str, **_: Any) -> None:
    """Build the runtime of a new pool process. A classify process verifies its bundle before its row is inserted."""
    global _runtime
    from worker.classify import pipeline  # noqa: F401 - imported now, so that the first task does not wait for it
    from worker.classify import runtime as classify_runtime
    from worker.intake import runtime as intake_runtime
    from worker.intake import unpack  # noqa: F401 - imported now, so that the first task does not wait for it

    builders = {Queue.CLASSIFY: classify_runtime.build, Queue.INTAKE: intake_runtime.build}
    settings = Settings()
    logs.configure(settings)
    try:
        built: Runtime = builders[Queue(sender.split("@")[0])](settings)
        _register(built)
    except errors.Unfit as err:
        _end_worker(settings, err, UNFIT)
    except Exception as err:  # Celery would ignore the error and run on without a runtime
        log.exception("this worker could not start")
        _end_worker(settings, err, FAILED)
    _runtime = built


@signals.worker_process_shutdown.connect
def end(**_: Any) -> None:
    """Delete this worker's row and close its connections."""
    if _runtime is not None:
        _runtime.close()


def _register(built: Runtime) -> None:
    """Load the program's model and insert the worker's row; retry while the database is unreachable. Raises Unfit."""
    loaded = built.load()
    while True:
        try:
            built.heartbeat.start(loaded)
            return
        except errors.Transient as err:
            if shutdown.find_flag(built.settings, os.getppid()).exists():
                raise SystemExit(0) from err
            log.warning("waiting %.0f s for the database: %s", _PAUSE_SECONDS, err)
            time.sleep(_PAUSE_SECONDS)


def _guard(drain: Callable[[Any], None]) -> None:
    """Run a drain with the runtime of its program.

    The worker ends when it has no runtime or when the drain raises an unexpected error; a new one replaces it.
    """
    if _runtime is None:
        _end_worker(Settings(), RuntimeError("this process has no runtime: its start failed"), FAILED)
    try:
        drain(_runtime)
    except errors.Unfit as err:
        _end_worker(_runtime.settings, err, UNFIT)
    except Exception as err:  # a MemoryError that leaves the task would kill the worker without a log entry
        log.exception("the drain failed")
        _end_worker(_runtime.settings, err, FAILED)


def _end_worker(settings: Settings, err: Exception, status: int) -> NoReturn:
    """End the whole worker: write an exit note, stop the parent process, then end this process.

    Raises SystemExit, because Celery's signals ignore every other exception and the worker would run on.
    """
    log.critical("this worker ends with status %d: %s", status, err)
    shutdown.ExitNote(settings, os.getppid()).write(status, str(err))
    os.kill(os.getppid(), signal.SIGTERM)
    raise SystemExit(status)
