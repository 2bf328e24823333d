"""The two tasks, as doorways; and the life of the pool process that runs them.

A message only says "there is work", so a task takes no arguments and returns nothing. What does the work is imported
by the pool process when it starts: its parent only passes messages on, and is there half a second sooner without.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from celery import shared_task, signals

from dermq import errors
from dermq.queue import Queue, Task
from dermq.settings import Settings
from worker import logs, shutdown

if TYPE_CHECKING:
    from worker.runtime import Runtime

log = logging.getLogger(__name__)

UNFIT = 78
"""EX_CONFIG: the exit status of a worker that must not run until somebody mends its bundle."""

_runtime: Runtime | None = None


@shared_task(name=Task.CLASSIFY)
def classify() -> None:
    """Drain claims for a while; safe to run twice, and safe not to run."""
    from worker import pipeline

    _guarded(pipeline.drain)


@shared_task(name=Task.INTAKE)
def intake() -> None:
    """Unpack archives for a while; safe to run twice, and safe not to run."""
    from worker import unpack

    _guarded(unpack.drain)


@signals.worker_process_init.connect
def start(sender: str, **_: Any) -> None:
    """Build the runtime of a fresh pool process; a classify process verifies its bundle before it appears."""
    global _runtime
    from worker import pipeline, runtime, unpack  # noqa: F401 - so that the first task finds them there

    settings = Settings()
    logs.configure(settings)
    queue = Queue(sender.split("@")[0])
    built = runtime.build(settings, queue)
    try:
        if queue is Queue.CLASSIFY:
            model = built.models.load_current()
            built.presence.start(bundle=model.bundle.name, engine=model.engine.name)
        else:
            built.presence.start()
    except errors.Unfit as err:
        _leave(settings, err)
    _runtime = built


@signals.worker_process_shutdown.connect
def end(**_: Any) -> None:
    """Disappear from the workers."""
    if _runtime is not None:
        _runtime.close()


def _guarded(drain: Any) -> None:
    """Run a drain, unless this process has not verified its bundle; let no MemoryError out of the task."""
    if _runtime is None:
        log.error("this process never became fit for work and does none")
        return
    try:
        drain(_runtime)
    except errors.Unfit as err:
        _leave(_runtime.settings, err)
    except MemoryError:
        log.exception("out of memory outside of any claim")


def _leave(settings: Settings, err: errors.Unfit) -> NoReturn:
    """End the whole worker: leave a note for the parent and stop it, then this process.

    Only SystemExit gets out of a signal of Celery; anything else is swallowed and the worker runs on.
    """
    log.critical("unfit for work: %s", err)
    note = shutdown.unfit_note(settings, os.getppid())
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(err))
    os.kill(os.getppid(), signal.SIGTERM)
    raise SystemExit(UNFIT)
