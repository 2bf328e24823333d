"""What a container's health check asks: does a worker of this host live?"""

import socket

import pytest
import sqlalchemy as sa

from dermq import db
from dermq.models import Worker
from dermq.settings import Settings
from worker import alive


def _seen(sessions: db.Sessions, name: str, seconds_ago: float) -> None:
    at = db.now(-seconds_ago)
    row = {"name": name, "queue": "classify", "started_at": at, "seen_at": at, "progressed_at": at}
    db.transact(sessions, lambda session: session.execute(sa.insert(Worker).values(**row)))


@pytest.mark.parametrize(
    ("host", "seconds_ago", "expected"),
    [(socket.gethostname(), 1, True), (socket.gethostname(), 60, False), ("another-host", 1, False)],
)
def test_only_a_sign_of_life_from_this_host_counts(
    sessions: db.Sessions, database_url: str, host: str, seconds_ago: float, expected: bool
) -> None:
    _seen(sessions, f"{host}:classify:42", seconds_ago)
    assert alive.main(Settings(database_url=database_url)) is expected
