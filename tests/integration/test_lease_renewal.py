"""A lease is renewed only while the main loop makes progress. On both databases."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Claim
from dermq.queue import leases
from tests.processes import until
from worker.process.lease_renewal import LeaseRenewal

LEASE_SECONDS = 0.8


@pytest.fixture
def renewal(sessions: db.Sessions) -> Iterator[LeaseRenewal]:
    with LeaseRenewal(sessions, LEASE_SECONDS) as started:
        yield started


@pytest.fixture
def token(sessions: db.Sessions) -> uuid.UUID:
    return db.transact(sessions, leases.begin, "w", LEASE_SECONDS)


def left_seconds(sessions: db.Sessions, token: uuid.UUID) -> float:
    """Return the seconds until the lease expires; a negative number means that it has expired."""
    wanted = sa.select(Claim.expires_at, db.now()).where(Claim.token == token)
    expires_at, now = db.read(sessions, lambda session: session.execute(wanted).one())
    return float((expires_at - now).total_seconds())


def make_progress(renewal: LeaseRenewal, seconds: float) -> None:
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        renewal.note_progress()
        time.sleep(0.05)


def progressed(renewal: LeaseRenewal) -> bool:
    renewal.note_progress()
    return True


def test_a_lease_outlives_its_length_while_there_is_progress(
    sessions: db.Sessions, renewal: LeaseRenewal, token: uuid.UUID
) -> None:
    renewal.add(token)
    make_progress(renewal, 3 * LEASE_SECONDS)
    assert left_seconds(sessions, token) > 0


def test_a_lease_runs_out_without_progress(sessions: db.Sessions, renewal: LeaseRenewal, token: uuid.UUID) -> None:
    renewal.add(token)
    until(lambda: left_seconds(sessions, token) < 0, seconds=10 * LEASE_SECONDS)
    renewal.note_progress()
    until(lambda: left_seconds(sessions, token) > 0, seconds=10)


def test_a_lease_that_is_removed_runs_out_whatever_the_progress(
    sessions: db.Sessions, renewal: LeaseRenewal, token: uuid.UUID
) -> None:
    renewal.add(token)
    renewal.remove(token)
    make_progress(renewal, 2 * LEASE_SECONDS)
    assert left_seconds(sessions, token) < 0


def test_a_renewal_that_fails_is_tried_again(
    sessions: db.Sessions, renewal: LeaseRenewal, token: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, calls = leases.renew, []

    def away_at_first(session: Session, *arguments: Any) -> bool:
        calls.append(arguments)
        if len(calls) == 1:
            raise errors.Unavailable("database_unavailable", "away")
        return renew(session, *arguments)

    monkeypatch.setattr(leases, "renew", away_at_first)
    renewal.add(token)
    until(lambda: progressed(renewal) and len(calls) >= 3, seconds=10)
    until(lambda: progressed(renewal) and left_seconds(sessions, token) > 0, seconds=10)


def test_a_lease_that_was_lost_is_given_up(
    sessions: db.Sessions, renewal: LeaseRenewal, token: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[uuid.UUID] = []

    def lost(session: Session, token: uuid.UUID, lease_seconds: float) -> bool:
        calls.append(token)
        return False

    monkeypatch.setattr(leases, "renew", lost)
    renewal.add(token)
    make_progress(renewal, LEASE_SECONDS)
    assert calls == [token]
