"""What every request may use: settings, database, blob store, wake-ups. Built once, by ``web.app``."""

import threading
from dataclasses import dataclass
from typing import Protocol

from flask import Flask, current_app

from dermq import bundles, db, storage
from dermq.settings import Settings
from dermq.storage import BlobStore
from dermq.wakeups import Queue, Wakeups

EXTENSION = "dermq"


class Wakes(Protocol):
    """The side of ``dermq.wakeups.Wakeups`` that the web uses."""

    def send(self, queue: Queue) -> bool: ...

    def reachable(self) -> bool: ...


@dataclass(frozen=True)
class Services:
    """The surroundings of a request."""

    settings: Settings
    sessions: db.Sessions
    blobs: BlobStore
    wakeups: Wakes
    receiving: threading.BoundedSemaphore
    """One place for each thread that may receive a body at a time."""

    def bundle(self) -> bundles.Bundle:
        """The bundle that new batches use. Raises Unfit when there is none."""
        return bundles.current(self.settings.bundles_dir)


def build(settings: Settings, wakeups: Wakes | None = None) -> Services:
    """Build the services of one web process."""
    return Services(
        settings=settings,
        sessions=db.Sessions(settings.database, pool_size=settings.web_threads),
        blobs=storage.build(settings),
        wakeups=wakeups or Wakeups(settings),
        receiving=threading.BoundedSemaphore(max(1, settings.web_threads // 2)),
    )


def attach(app: Flask, services: Services) -> None:
    """Make ``services`` the ones that ``current`` returns in ``app``."""
    app.extensions[EXTENSION] = services


def current() -> Services:
    """The services of the running application."""
    found: Services = current_app.extensions[EXTENSION]
    return found
