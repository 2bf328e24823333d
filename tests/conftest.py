"""Fixtures that tests share: databases, an embedded Valkey, blobs, a bundle, real images.

A missing service skips a test on a developer's machine and fails it in CI.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
import sqlalchemy as sa
from xdist.scheduler import LoadScopeScheduling

from dermq import bundles, db, labs
from dermq.models import Lab
from dermq.settings import ROOT, Settings
from dermq.storage.local import LocalStore
from tests import servers

SHARED = ROOT.parent / "shared"

# No deadline, because a shared machine may be slow; no random seeds, because CI must give the same result each time.
hypothesis.settings.register_profile("dermq", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("dermq")


# The tests of each of these folders share a system that takes seconds to start, so one process runs them in order.
_TOGETHER = ("tests/browser/", *(f"tests/integration/test_{name}.py" for name in ("embedded", "dev", "docs_site")))


class Scheduling(LoadScopeScheduling):
    """Gives each process one test after another; the tests of a folder in ``_TOGETHER`` stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((place for place in _TOGETHER if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Tell pytest-xdist how to distribute the tests."""
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure no coverage while a test runs on PostgreSQL, because measuring makes Python slower by a half.

    The same test runs on SQLite, too, and executes almost the same lines of our code.
    """
    callspec = getattr(item, "callspec", None)
    measured = _find_coverage() if callspec and callspec.params.get("database_url") == "postgresql" else None
    if measured is None:
        return (yield)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()


def _find_coverage() -> Any:
    """Return what measures coverage in this process, or None."""
    coverage = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


def missing(what: str) -> NoReturn:
    """Skip the test on a developer's machine and fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}.")
    pytest.skip(f"{what} is not here")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images next to the clone."""
    if not (SHARED / "ham10000").is_dir():
        if os.environ.get("DERMQ_CI_PUBLIC") == "true":  # set by `.ci/run --public`
            pytest.skip("needs ../shared")
        missing("../shared")
    return SHARED


@pytest.fixture(scope="session")
def originals(shared: Path) -> dict[str, bytes]:
    """A hundred real dermatoscopic images, by file name."""
    with zipfile.ZipFile(shared / "ham10000" / "originals_600x450.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="session")
def bundle() -> bundles.Bundle:
    """The current bundle."""
    return bundles.find_current(ROOT / "bundles")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server, either a given one or one that is started for the tests."""
    given = os.environ.get("DERMQ_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    binaries = servers.postgresql_binaries()
    if binaries is None:
        missing("PostgreSQL (DERMQ_TEST_POSTGRES_URL, or initdb and pg_ctl)")
    with servers.Postgresql(binaries) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated, empty database; a test with this fixture runs once on each database system.

    On SQLite it is a copy of a file that was migrated once. On PostgreSQL it is a database that was emptied after the
    test before, because a migration takes much longer.
    """
    if request.param == "sqlite":
        yield request.getfixturevalue("migrated_sqlite_url")
    else:
        with request.getfixturevalue("shared_postgresql").use() as url:
            yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite database without tables."""
    return f"sqlite:///{tmp_path / 'dermq.sqlite3'}"


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str, sqlite_template: Path) -> str:
    """The URL of a migrated, empty SQLite database."""
    shutil.copyfile(sqlite_template, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy, complete in one file."""
    path = tmp_path_factory.mktemp("template") / "dermq.sqlite3"
    servers.migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> Iterator[sa.URL]:
    """A migrated PostgreSQL database to copy."""
    server = sa.make_url(postgresql).set(drivername="postgresql+psycopg")
    with servers.postgresql_copy(server, template="template1") as url:
        servers.migrate(url)
        yield sa.make_url(url)


@pytest.fixture(scope="session")
def shared_postgresql(postgresql_template: sa.URL) -> Iterator[servers.SharedDatabase]:
    """The PostgreSQL database that the tests of this process share."""
    with servers.SharedDatabase(postgresql_template) as shared:
        yield shared


@pytest.fixture
def sessions(database_url: str) -> Iterator[db.Sessions]:
    """Sessions on an empty database; a test with this fixture runs once on each database system."""
    found = db.Sessions(database_url)
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with folders of the test's own. No Redis answers; use the fixture ``valkey`` for a real one."""
    return Settings(var_dir=tmp_path / "var", redis_url="redis://127.0.0.1:1/0", _env_file=None)


@pytest.fixture
def blobs(settings: Settings) -> LocalStore:
    found = LocalStore(settings.blobs)
    found.begin()  # some tests add rows before any file is stored
    return found


@pytest.fixture
def lab(sessions: db.Sessions) -> Lab:
    return db.transact(sessions, lambda session: labs.add(session, "lab"))


@pytest.fixture
def valkey() -> Iterator[str]:
    """The URL of a real, empty Valkey on its own socket."""
    with servers.Valkey() as server:
        yield server.url
