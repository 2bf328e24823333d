"""The health check of a container: is a worker of this host alive and not stalled?"""

import socket

import pytest
import sqlalchemy as sa

from dermq import bundles, db
from dermq.models import Batch, Lab, Worker
from dermq.settings import Settings
from tests import fakes
from worker import alive


def _seen(sessions: db.Sessions, name: str, seconds_ago: float, *, progressed: float = 0) -> None:
    at = db.now(-seconds_ago)
    row = {"name": name, "queue": "classify", "bundle": "b", "started_at": at, "seen_at": at}
    row["progressed_at"] = db.now(-progressed)
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


def test_a_worker_that_stalled_is_not_well(
    sessions: db.Sessions, database_url: str, lab: Lab, bundle: bundles.Bundle
) -> None:
    _seen(sessions, f"{socket.gethostname()}:classify:42", 1, progressed=600)
    assert alive.main(Settings(database_url=database_url))
    fakes.fill(sessions, fakes.create(sessions, lab, bundle), 1)
    db.transact(sessions, lambda session: session.execute(sa.update(Batch).values(touched_at=db.now(-60))))
    assert not alive.main(Settings(database_url=database_url))
