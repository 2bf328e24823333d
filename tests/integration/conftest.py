"""The web application on each database, clients of two labs, and worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import access_tokens, db, labs
from dermq.models import Lab
from dermq.settings import Settings
from tests import fakes
from tests.processes import Programs
from web import services
from web.app import create_app


@pytest.fixture
def wakeups() -> fakes.Wakeups:
    return fakes.Wakeups()


@pytest.fixture
def make_app(
    settings: Settings, database_url: str, sessions: db.Sessions, wakeups: fakes.Wakeups
) -> Iterator[Callable[..., APIFlask]]:
    """Make the application with other limits than usual."""
    made = []

    def make(**limits: Any) -> APIFlask:
        app = create_app(settings.model_copy(update={"database_url": database_url, **limits}), wakeups=wakeups)
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions[services.EXTENSION].sessions.close()


@pytest.fixture
def app(make_app: Callable[..., APIFlask]) -> APIFlask:
    return make_app()


@pytest.fixture
def token(sessions: db.Sessions, lab: Lab) -> str:
    return db.transact(sessions, access_tokens.issue, lab, "test")


@pytest.fixture
def client(app: APIFlask, token: str) -> FlaskClient:
    """A client with the lab's token."""
    return with_token(app, token)


@pytest.fixture
def stranger(app: APIFlask, sessions: db.Sessions) -> FlaskClient:
    """A client with another lab's token."""
    other = db.transact(sessions, labs.add, "other lab")
    return with_token(app, db.transact(sessions, access_tokens.issue, other, "test"))


def with_token(app: APIFlask, token: str) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


@pytest.fixture
def deployed(tmp_path: Path, migrated_sqlite_url: str, valkey: str) -> Settings:
    """Settings with short leases, a migrated SQLite database and a Valkey of its own."""
    return Settings(
        var_dir=tmp_path / "var",
        database_url=migrated_sqlite_url,
        redis_url=valkey,
        lease_seconds=3,
        reaper_seconds=1,
        worker_seen_seconds=1,
        step_images=4,
    )


@pytest.fixture
def stored(deployed: Settings) -> Iterator[db.Sessions]:
    found = db.Sessions(deployed.database)
    yield found
    found.close()


@pytest.fixture
def start(deployed: Settings) -> Iterator[Programs]:
    """Starts a program of ``python -m worker``; all are killed after the test."""
    programs = Programs(deployed)
    yield programs
    programs.kill()
