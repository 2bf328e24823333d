"""Fakes behind the real interfaces, and functions that fill a batch with images."""

import atexit
import contextlib
import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from dermq import arrivals, batches, bundles, db, transitions
from dermq.models import Batch, Image, Lab, Prediction
from dermq.principals import OPERATOR
from dermq.settings import Settings
from dermq.storage import BlobStore
from dermq.wakeups import Queue
from tests import samples
from worker.classify.engines import Outputs
from worker.classify.model import Model
from worker.classify.runtime import ClassifyRuntime
from worker.decoders.frames import Request
from worker.decoders.pool import Decoders, Job
from worker.process.heartbeat import Loaded


@dataclass
class Wakeups:
    """Records the wake-ups that are sent."""

    sent: list[Queue] = field(default_factory=list)

    def send(self, queue: Queue) -> bool:
        self.sent.append(queue)
        return True

    def acknowledge(self, queue: Queue) -> None:
        pass

    def is_reachable(self) -> bool:
        return True


class Engine:
    """Predicts a class from the mean of an image; ``before`` is called first and may fail or wait."""

    name = "fake"
    files: tuple[str, ...] = ()
    tolerance = 1.0

    def __init__(self, before: Callable[[NDArray[np.uint8]], None] = lambda pixels: None) -> None:
        self.before = before
        self.steps: list[int] = []

    def load(self, bundle: bundles.Bundle) -> None:
        pass

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        self.before(pixels)
        self.steps.append(len(pixels))
        classes = pixels.reshape(len(pixels), -1).mean(axis=1).astype(int) % 7
        probabilities = np.full((len(pixels), 7), 0.05, np.float32)
        probabilities[np.arange(len(pixels)), classes] = 0.7
        return Outputs(probabilities, np.zeros(len(pixels), np.float32))


@dataclass
class Models:
    """Holds one model and never changes it."""

    held: Model

    def find(self, waiting: Sequence[str]) -> Model | None:
        return self.held if self.held.bundle.sha256 in waiting else None


class Heartbeat:
    def note_progress(self) -> None:
        pass

    def show_loaded(self, loaded: Loaded | None) -> None:
        pass


def runtime(
    settings: Settings,
    sessions: db.Sessions,
    blobs: BlobStore,
    bundle: bundles.Bundle,
    engine: Engine,
    name: str = "w",
    decoding: Decoders | None = None,
) -> ClassifyRuntime:
    """A worker's runtime with a fake engine, and with the decoders that all tests share."""
    services: dict[str, Any] = {"models": Models(Model(bundle, engine)), "heartbeat": Heartbeat(), "wakeups": Wakeups()}
    services["decoders"] = decoding or decoders()
    return ClassifyRuntime(settings, Queue.CLASSIFY, name, sessions, blobs, **services)


@functools.cache
def decoders() -> Decoders:
    """The decoders of this process, started once: a start takes half a second. One image was decoded already."""
    found = Decoders(Settings(_env_file=None))
    atexit.register(found.close)
    first = Job(0, Request(8, 1, draft=False, max_pixels=10_000, max_side=100), samples.jpeg)
    found.submit([first])
    first.future.result(timeout=60)
    return found


def create(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, *, name: str = "batch", urgent: bool = False
) -> Batch:
    batch, _ = db.transact(sessions, batches.create, lab.id, batches.Draft(name, urgent=urgent), bundle, by=OPERATOR)
    return batch


def add(
    sessions: db.Sessions, blobs: BlobStore, settings: Settings, batch: Batch, files: dict[str, bytes]
) -> list[arrivals.Verdict]:
    """Add files to a batch as the web does."""
    with contextlib.ExitStack() as stack:
        taken = [
            stack.enter_context(arrivals.receive_file(blobs, name, [data], settings)) for name, data in files.items()
        ]
        arrivals.keep(sessions, blobs, batch.id, taken, settings)
        return db.transact(sessions, arrivals.receive, batch.id, taken, settings)


def fill(sessions: db.Sessions, batch: Batch, images: int) -> None:
    """Queue rows without blobs, for tests that decode nothing."""

    def work(session: Session) -> None:
        locked = batches.lock(session, batch.id)
        rows = [
            {
                "position": locked.received + at + 1,
                "name": f"{locked.received + at + 1}.jpg",
                "sha256": "0" * 64,
                "bytes": 1,
            }
            for at in range(images)
        ]
        transitions.add_images(session, locked, rows)

    db.transact(sessions, work)


def pictures(count: int) -> dict[str, bytes]:
    return {f"{seed:04}.jpg": samples.jpeg(seed) for seed in range(count)}


def get(sessions: db.Sessions, batch: Batch) -> Batch:
    found = db.read(sessions, lambda session: session.get(Batch, batch.id))
    assert found is not None
    return found


def images(sessions: db.Sessions, batch: Batch) -> Sequence[Image]:
    wanted = sa.select(Image).where(Image.batch_id == batch.id).order_by(Image.position)
    return db.read(sessions, lambda session: session.scalars(wanted).all())


def predictions(sessions: db.Sessions, batch_id: uuid.UUID) -> int:
    counted = sa.select(sa.func.count()).select_from(Prediction).join(Image).where(Image.batch_id == batch_id)
    return db.read(sessions, lambda session: session.scalar(counted)) or 0
