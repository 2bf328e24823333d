"""``python -m worker classify``, ``python -m worker intake`` and ``python -m worker reaper``."""

import argparse
import logging
import os
import socket
import sys
import threading
import time
from typing import Any

from celery import signals

from dermq.settings import Settings
from dermq.wakeups import Queue
from worker import tasks
from worker.process import celery_app, logs, shutdown

log = logging.getLogger(__name__)

_WATCH_AFTER_SECONDS = 2.0
"""The watchdog starts after this delay, because its imports would slow down the start of the worker."""


def main() -> int:
    """Run one program until it is told to stop; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Workers of dermq and its reaper.")
    parser.add_argument("program", choices=[*(queue.value for queue in Queue), "reaper"])
    program = parser.parse_args().program
    settings = Settings()
    logs.configure(settings)
    if program == "reaper":
        from worker import reaper  # here, because the import would add half a second to the other programs' start

        reaper.run(settings)
        return 0
    return _work(settings, Queue(program))


def _work(settings: Settings, queue: Queue) -> int:
    flag = shutdown.find_flag(settings, os.getpid())
    note = shutdown.ExitNote(settings, os.getpid())
    flag.parent.mkdir(parents=True, exist_ok=True)
    flag.unlink(missing_ok=True)
    note.take()  # remove the note of an earlier process that had this pid

    @signals.worker_shutting_down.connect(weak=False)
    def stop(**_: Any) -> None:
        flag.touch()

    app = celery_app.create(settings)
    worker = app.Worker(
        hostname=f"{queue}@{socket.gethostname()}",
        queues=[queue.value],
        pool="prefork",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=settings.log_level,
    )
    threading.Thread(target=_watch, args=(settings, queue, time.monotonic()), name="watchdog", daemon=True).start()
    try:
        worker.start()
    finally:
        flag.unlink(missing_ok=True)
    if (noted := note.take()) is not None:
        status, reason = noted
        log.critical("this worker ends with status %d: %s", status, reason)
        return status
    return int(worker.exitcode or 0)


def _watch(settings: Settings, queue: Queue, started: float) -> None:
    """End the worker when it stalls."""
    time.sleep(_WATCH_AFTER_SECONDS)
    from worker.process import watchdog

    watchdog.run(settings, queue, started, tasks.FAILED)


if __name__ == "__main__":
    sys.exit(main())
