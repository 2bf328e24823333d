"""Real worker processes and what they are given to do."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import sqlalchemy as sa

from dermq import batches, bundles, db, labs
from dermq.models import Batch, Worker
from dermq.principals import OPERATOR
from dermq.settings import ROOT, Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue, Wakeups
from tests import fakes

IMAGES = 160


class Programs:
    """Programs of ``python -m worker`` with the same settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started: list[psutil.Popen] = []

    def __call__(self, program: str, *, module: str = "worker", **changes: Any) -> psutil.Popen:
        """Start one, maybe with other settings."""
        environment = {
            f"DERMQ_{k.upper()}": str(v) for k, v in self._settings.model_dump(exclude_defaults=True).items()
        }
        environment |= {f"DERMQ_{k.upper()}": str(v) for k, v in changes.items()}
        process = psutil.Popen(
            [sys.executable, "-m", module, program],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def kill(self) -> None:
        """Kill all, with their children."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pool(worker: psutil.Popen) -> list[psutil.Process]:
    """The processes that do the work."""
    return [child for child in worker.children() if "spawn_main" in " ".join(child.cmdline())]


def runs(worker: psutil.Popen) -> bool:
    """Whether it has not ended; psutil takes an ended one that nobody waited for as running."""
    return worker.poll() is None


def submit(settings: Settings, sessions: db.Sessions, bundle: bundles.Bundle) -> Batch:
    lab = db.transact(sessions, labs.add, "lab")
    batch = fakes.create(sessions, lab, bundle)
    fakes.add(sessions, LocalStore(settings.blobs), settings, batch, fakes.pictures(IMAGES))
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    Wakeups(settings).send(Queue.CLASSIFY)
    return batch


def until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for a condition and say how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited in vain"
        time.sleep(0.05)
    return time.monotonic() - started


def is_alive(sessions: db.Sessions, queue: Queue) -> bool:
    wanted = sa.select(Worker.name).where(Worker.queue == queue)
    return db.read(sessions, lambda session: session.scalar(wanted)) is not None
