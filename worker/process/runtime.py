"""What a worker process holds for as long as it lives."""

import os
from dataclasses import dataclass, field

from dermq import db
from dermq.settings import Settings
from dermq.storage.local import Blobs
from dermq.wakeups import Queue, Wakeups
from worker.classify.model import Models
from worker.process import heartbeat
from worker.process.heartbeat import Heartbeat


@dataclass(frozen=True)
class Runtime:
    """The services that the tasks of one process share."""

    settings: Settings
    queue: Queue
    name: str
    sessions: db.Sessions
    blobs: Blobs
    wakeups: Wakeups
    models: Models
    heartbeat: Heartbeat
    bundle_ids: dict[str, int] = field(default_factory=dict)
    """Row ids of bundles by SHA-256, as far as they were asked for."""

    def close(self) -> None:
        self.heartbeat.stop()
        self.sessions.close()


def build(settings: Settings, queue: Queue) -> Runtime:
    """Connect to everything; loads no model and claims nothing."""
    name = heartbeat.name(queue, os.getpid())
    sessions = db.Sessions(settings.database)
    return Runtime(
        settings=settings,
        queue=queue,
        name=name,
        sessions=sessions,
        blobs=Blobs(settings.blobs),
        wakeups=Wakeups(settings),
        models=Models(settings.bundles_dir, settings.engine, step_images=settings.step_images),
        heartbeat=Heartbeat(sessions, name, queue, settings.worker_seen_seconds),
    )
