"""Renews leases from a thread, but only while the main loop makes progress.

A hung engine makes no progress, so its lease expires and its images go to another worker.
"""

import logging
import threading
import time
import uuid
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from dermq import db, errors
from dermq.queue import leases

log = logging.getLogger(__name__)

RENEWALS = 4
"""The number of renewals within the length of one lease."""


class LeaseRenewal:
    """Renews the leases that a drain holds."""

    def __init__(self, sessions: db.Sessions, lease_seconds: float) -> None:
        self._sessions = sessions
        self._lease_seconds = lease_seconds
        self._tokens: set[uuid.UUID] = set()
        self._progressed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def add(self, token: uuid.UUID) -> None:
        """Start to renew this lease. Counts as progress."""
        self._tokens.add(token)
        self.note_progress()

    def remove(self, token: uuid.UUID) -> None:
        """Stop renewing this lease."""
        self._tokens.discard(token)

    def note_progress(self) -> None:
        """Note that the main loop made progress."""
        self._progressed = time.monotonic()

    def _run(self) -> None:
        while not self._ended.wait(self._lease_seconds / RENEWALS):
            if time.monotonic() - self._progressed > self._lease_seconds:
                log.warning("no progress for %.0f s: leases are no longer renewed", self._lease_seconds)
                continue
            for token in tuple(self._tokens):
                self._renew(token)

    def _renew(self, token: uuid.UUID) -> None:
        try:
            ours = db.transact(self._sessions, leases.renew, token, self._lease_seconds)
        except (errors.Transient, SQLAlchemyError) as err:
            log.warning("a lease could not be renewed: %s", err)
            return
        if not ours:
            self.remove(token)
