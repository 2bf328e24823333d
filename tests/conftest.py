"""Services and folders that tests share: databases, an embedded Valkey, blobs, a bundle, real images.

A missing service skips a test at home and fails it in CI.
"""

import contextlib
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from dermq import bundles, db, labs
from dermq.blobs import Blobs
from dermq.models import Lab
from dermq.settings import ROOT, Settings

SHARED = ROOT.parent / "shared"

# A shared machine makes no promise of time; and what CI says must not depend on what it happens to draw.
hypothesis.settings.register_profile("dermq", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("dermq")


def missing(what: str) -> NoReturn:
    """Skip at home, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}.")
    pytest.skip(f"{what} is not here")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images beside the clone."""
    if not (SHARED / "ham10000").is_dir():
        missing("../shared")
    return SHARED


@pytest.fixture(scope="session")
def originals(shared: Path) -> dict[str, bytes]:
    """A hundred real dermatoscopic images, by file name."""
    with zipfile.ZipFile(shared / "ham10000" / "originals_600x450.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="session")
def bundle() -> bundles.Bundle:
    """The bundle that ships."""
    return bundles.current(ROOT / "bundles")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server: a given one, or one started for these tests."""
    given = os.environ.get("DERMQ_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    binaries = _postgresql_binaries()
    if binaries is None:
        missing("PostgreSQL (DERMQ_TEST_POSTGRES_URL, or initdb and pg_ctl)")
    folder = Path("/tmp") / f"dermq-pg-{uuid.uuid4().hex[:8]}"  # a socket's path must be short
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder.mkdir(mode=0o700)
    shutil.chown(folder, user)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [binaries / program, "-D", folder / "data", *arguments],
            check=True,
            user=user if os.getuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )

    run("initdb", "-U", "dermq", "-A", "trust", "-N", "-E", "UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://dermq@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def _postgresql_binaries() -> Path | None:
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "pg_ctl").exists()), None)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a migrated, empty database; a test that takes it runs once on each database.

    It is a copy of one that was migrated once, which takes a fraction of the time.
    """
    if request.param == "sqlite":
        yield request.getfixturevalue("migrated_sqlite_url")
    else:
        yield from _postgresql_copy(request.getfixturevalue("postgresql_template"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an empty SQLite database without tables."""
    return f"sqlite:///{tmp_path / 'dermq.sqlite3'}"


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str, sqlite_template: Path) -> str:
    """URL of a migrated, empty SQLite database."""
    shutil.copyfile(sqlite_template, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy; whole in its one file."""
    path = tmp_path_factory.mktemp("template") / "dermq.sqlite3"
    migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> Iterator[sa.URL]:
    """A migrated PostgreSQL database to copy."""
    for url in _postgresql_copy(sa.make_url(postgresql).set(drivername="postgresql+psycopg"), template="template1"):
        migrate(url)
        yield sa.make_url(url)


def _postgresql_copy(server: sa.URL, template: str | None = None) -> Iterator[str]:
    """A new database like the one of ``server``, or like ``template``; dropped afterwards."""
    name = f"dermq_{uuid.uuid4().hex}"
    admin = sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template or server.database}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def migrate(url: str) -> None:
    """Bring a database to the newest revision."""
    sessions = db.Sessions(url)
    config = Config(ROOT / "alembic.ini")
    with sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    sessions.close()


@pytest.fixture
def sessions(database_url: str) -> Iterator[db.Sessions]:
    """Sessions on an empty database; a test that takes it runs once on each database."""
    found = db.Sessions(database_url)
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose folders are the test's own. Redis points nowhere; take ``valkey`` for a real one."""
    return Settings(var_dir=tmp_path / "var", redis_url="redis://127.0.0.1:1/0", _env_file=None)


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs(settings.blobs)


@pytest.fixture
def lab(sessions: db.Sessions) -> Lab:
    return db.transact(sessions, lambda session: labs.add(session, "lab"))


@pytest.fixture
def valkey() -> Iterator[str]:
    """URL of a real, empty Valkey on a socket of its own."""
    folder = Path("/tmp") / f"dermq-valkey-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    with running_valkey(folder / "socket"):
        yield f"unix://{folder / 'socket'}"
    shutil.rmtree(folder)


class running_valkey:  # noqa: N801 - used as a context
    """A Valkey server on a socket; ``process`` may be killed, frozen and started again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "running_valkey":
        self.start()
        return self

    def start(self) -> None:
        from embedded import valkey as valkey_server  # not installed where training is tested

        self.process = subprocess.Popen(
            [*valkey_server.arguments(self.path)],
            stdout=subprocess.DEVNULL,
            cwd=self.path.parent,
        )
        deadline = time.monotonic() + 10
        while not self.path.exists():
            if time.monotonic() > deadline:
                pytest.fail("Valkey did not start within 10 s")
            time.sleep(0.02)

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
