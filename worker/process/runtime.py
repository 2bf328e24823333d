"""The runtime of a worker process: what it holds from start to end, in every program."""

import os
from dataclasses import dataclass
from typing import Any, Self

from dermq import db, storage
from dermq.settings import Settings
from dermq.storage import BlobStore
from dermq.wakeups import Queue, Wakeups
from worker.process import heartbeat
from worker.process.heartbeat import Heartbeat, Loaded


@dataclass(frozen=True)
class Runtime:
    """The services that the tasks of one process share. A program that needs more services defines a subclass."""

    settings: Settings
    queue: Queue
    name: str
    sessions: db.Sessions
    blobs: BlobStore
    wakeups: Wakeups
    heartbeat: Heartbeat

    @classmethod
    def connect(cls, settings: Settings, queue: Queue, **own: Any) -> Self:
        """Build the shared services, and add the fields that only this program has as ``own``. Claim nothing."""
        name = heartbeat.make_name(queue, os.getpid())
        sessions = db.Sessions(settings.database)
        return cls(
            settings=settings,
            queue=queue,
            name=name,
            sessions=sessions,
            blobs=storage.build(settings),
            wakeups=Wakeups(settings),
            heartbeat=Heartbeat(sessions, name, queue, settings.worker_seen_seconds),
            **own,
        )

    def load(self) -> Loaded | None:
        """Load the program's model before the worker's row is inserted; None when the program has no model.

        Raises Unfit when the model must not be used.
        """
        return None

    def close(self) -> None:
        """Delete the worker's row and close the connections. Commits."""
        self.heartbeat.stop()
        self.sessions.close()
