"""Real servers for tests, each in a folder of its own: PostgreSQL and Valkey, started, killed, frozen and restarted."""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from dermq import db, models
from dermq.settings import ROOT

START_SECONDS = 10
_FIRST_PORT = 20_000
_PORTS = 1_500
_PORT_RANGES = 8
_MIGRATING = threading.Lock()
"""Alembic keeps what it migrates in global variables, so two threads must not migrate at the same time."""
_MOST_GROWTH_BYTES = 4_000_000
_SHAPE = sa.text(
    "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_attribute), (SELECT count(*) FROM pg_constraint),"
    " (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_proc), pg_database_size(current_database()) AS bytes"
)
_END_OTHERS = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_USED_SEQUENCES = sa.text("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL")


class Postgresql:
    """A PostgreSQL server on a free port; as root it runs as the user that Debian's package makes."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path("/tmp") / f"dermq-pg-{uuid.uuid4().hex[:8]}"  # the path of a Unix socket must be short
        self._user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"postgresql://dermq@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        shutil.chown(self._folder, self._user)
        self._run("initdb", "-U", "dermq", "-A", "trust", "-N", "-E", "UTF8")
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        # fsync is slow and only protects against a loss of power.
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop immediately, as in a crash; the next start recovers."""
        self._run("pg_ctl", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, "-D", self._folder / "data", *arguments],
            check=True,
            user=self._user if os.getuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
        )


def postgresql_binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``, or None when PostgreSQL is not installed."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "pg_ctl").exists()), None)


@contextlib.contextmanager
def postgresql_copy(server: sa.URL, template: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database on ``server``, a copy of ``template`` if given; drop it after the block."""
    name = f"dermq_{uuid.uuid4().hex}"
    admin = sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template or server.database}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


class SharedDatabase:
    """A PostgreSQL database that tests use one after the other. It is emptied after each test.

    To empty it costs a tenth of a copy. It is replaced by a new copy of ``template`` when a test has changed the schema
    or has made it grow, or when it cannot be emptied.
    """

    def __init__(self, template: sa.URL) -> None:
        self._template = template
        self._copy = contextlib.ExitStack()
        self._url: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._copy.close()

    @contextlib.contextmanager
    def use(self) -> Iterator[str]:
        """Yield the URL of the migrated, empty database."""
        if self._url is None:
            self._url = self._copy.enter_context(postgresql_copy(self._template))
            self._engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
            with self._engine.connect() as connection:
                tables = models.Base.metadata.sorted_tables
                self._rows = {table: connection.execute(sa.select(table)).all() for table in tables}
                self._shape = connection.execute(_SHAPE).one()
        yield self._url
        if not self._empty():
            self._copy.close()
            self._url = None

    def _empty(self) -> bool:
        """Delete what a test has left, and return whether the database is as it was when it was new."""
        try:
            with self._engine.connect() as connection:
                connection.execute(_END_OTHERS)
                now = connection.execute(_SHAPE).one()
                if now[:-1] != self._shape[:-1] or now.bytes > self._shape.bytes + _MOST_GROWTH_BYTES:
                    return False
                connection.exec_driver_sql("SET lock_timeout = '10s'; SET session_replication_role = replica")
                connection.exec_driver_sql("; ".join(f"DELETE FROM {table.name}" for table in self._rows))
                for name in connection.scalars(_USED_SEQUENCES).all():
                    connection.exec_driver_sql(f"ALTER SEQUENCE {name} RESTART")
                for table, rows in self._rows.items():
                    if rows:
                        connection.execute(table.insert(), [dict(row._mapping) for row in rows])
        except sa.exc.DBAPIError:
            return False
        return True


class Valkey:
    """A Valkey server on a socket; ``process`` may be killed, frozen and started again."""

    def __init__(self) -> None:
        self._folder = Path("/tmp") / f"dermq-valkey-{uuid.uuid4().hex[:8]}"
        self._socket = self._folder / "socket"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start the server without data."""
        from embedded import valkey  # not installed where training is tested

        self._socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [*valkey.make_arguments(self._socket)], stdout=subprocess.DEVNULL, cwd=self._folder
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Valkey did not start within {START_SECONDS} s")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server for the length of the block: it accepts connections but does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """Return a TCP port on which no program listens.

    Each pytest-xdist worker draws from a range of its own. The ranges lie below those of outgoing connections, so that
    no other program takes the port between this check and the start of a server.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker % _PORT_RANGES * _PORTS
    for port in random.sample(range(first, first + _PORTS), _PORTS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"No port from {first} to {first + _PORTS - 1} is free.")


def migrate(url: str) -> None:
    """Migrate a database to the newest revision."""
    sessions = db.Sessions(url)
    config = Config(ROOT / "alembic.ini")
    with _MIGRATING, sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    sessions.close()
