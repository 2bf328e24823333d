"""What every request may use: settings, database, blob store and wake-ups. ``web.app`` builds them once."""

from dataclasses import dataclass
from typing import Protocol

from flask import Flask, current_app

from dermq import bundles, db, storage
from dermq.settings import Settings
from dermq.storage import BlobStore
from dermq.wakeups import Queue, Wakeups
from web import rates
from web.places import Places

EXTENSION = "dermq"


class Wakes(Protocol):
    """The methods of ``dermq.wakeups.Wakeups`` that the web uses."""

    def send(self, queue: Queue) -> bool: ...

    def is_reachable(self) -> bool: ...


@dataclass(frozen=True)
class Services:
    """What a request may use."""

    settings: Settings
    sessions: db.Sessions
    blobs: BlobStore
    wakeups: Wakes
    places: Places
    """Places for uploads: as many threads as may receive a body at one time."""
    wrong_sign_ins: rates.WrongSignIns
    requests: rates.Requests

    def find_bundle(self) -> bundles.Bundle:
        """Return the bundle that new batches use. Raises Unfit when there is none."""
        return bundles.find_current(self.settings.bundles_dir)


def build(settings: Settings, wakeups: Wakes | None = None) -> Services:
    """Build the services of one web process."""
    return Services(
        settings=settings,
        sessions=db.Sessions(settings.database, pool_size=settings.web_threads),
        blobs=storage.build(settings),
        wakeups=wakeups or Wakeups(settings),
        places=Places(max(1, settings.web_threads // 2)),
        wrong_sign_ins=rates.WrongSignIns(),
        requests=rates.Requests(),
    )


def attach(app: Flask, services: Services) -> None:
    """Let ``get_current`` return these ``services`` in ``app``."""
    app.extensions[EXTENSION] = services


def get_current() -> Services:
    """Return the services of the application that serves this request."""
    found: Services = current_app.extensions[EXTENSION]
    return found
