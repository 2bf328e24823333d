"""What every worker process holds for as long as it lives, whichever program it runs."""

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
    """The services that the tasks of one process share. A program that needs more has a subclass of its own."""

    settings: Settings
    queue: Queue
    name: str
    sessions: db.Sessions
    blobs: BlobStore
    wakeups: Wakeups
    heartbeat: Heartbeat

    @classmethod
    def connect(cls, settings: Settings, queue: Queue, **own: Any) -> Self:
        """Build the shared services, add the program's ``own``, and claim nothing."""
        name = heartbeat.name(queue, os.getpid())
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
        """Load what the program works with, before the process appears among the workers; None when that is nothing.

        Raises Unfit when what is loaded must not be used.
        """
        return None

    def close(self) -> None:
        """Remove the process from the workers and close its connections."""
        self.heartbeat.stop()
        self.sessions.close()
