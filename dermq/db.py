"""Sessions and transactions. All commits, and all code that differs between SQLite and PostgreSQL, are here.

SQLite needs special care. By default, SQLAlchemy begins no transaction on it before the first write, which silently
loses updates. A deferred BEGIN that later writes fails at once with "database is locked". Therefore sessions that write
begin with BEGIN IMMEDIATE, one at a time in each process; sessions that read begin with BEGIN and refuse to flush.
"""

import contextlib
import fcntl
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.expression import FunctionElement

from dermq import db_faults, errors
from dermq.db_faults import Fault

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

RERUNS = 3
"""Times a transaction is run again after a deadlock, a serialization failure or a lost connection."""
_RERUN_SECONDS = 30.0
"""After this time a transaction is not run again, because the caller waits for an answer."""
_SQLITE_BUSY_SECONDS = 30
_POSTGRESQL_OPTIONS = (
    "-c timezone=utc -c lock_timeout=10s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
)
# Without these limits, the kernel waits a quarter of an hour for a server that vanished without closing the connection.
_POSTGRESQL_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A timezone-aware UTC time; SQLite stores it as text with microseconds."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without a zone cannot be stored.")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """An SQL expression: the time ``seconds`` from now by the database's clock, which leases are measured by."""

    type = UtcDateTime()
    inherit_cache = False

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = float(seconds)


@compiles(now, "sqlite")
def _write_now_on_sqlite(element: now, compiler: Any, **options: Any) -> str:
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', '{element.seconds:+f} seconds') || '000')"


@compiles(now, "postgresql")
def _write_now_on_postgresql(element: now, compiler: Any, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {element.seconds:f}))"


class Sessions:
    """Opens sessions on a database: some that write, and some that only read."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.engine = _make_engine(url, pool_size)
        self._write_lock = threading.Lock() if self.engine.dialect.name == "sqlite" else None
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self.engine.execution_options(dermq_reading=True, **_list_reading_options(self.engine)),
            expire_on_commit=False,
            class_=_ReadingSession,
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session in a transaction, which is committed unless the block raises."""
        with self._turn(), self._writing() as session, session.begin():
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one snapshot and refuses to write."""
        with self._reading() as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """On SQLite, wait until no other thread of this process writes. Raises Unavailable after 30 s."""
        if self._write_lock is None:
            yield
            return
        if not self._write_lock.acquire(timeout=_SQLITE_BUSY_SECONDS):
            raise _make_unavailable()
        try:
            yield
        finally:
            self._write_lock.release()


def _list_reading_options(engine: Engine) -> dict[str, Any]:
    if engine.dialect.name == "postgresql":
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {}


class _ReadingSession(Session):
    def flush(self, objects: Any = None) -> None:
        if self.new or self.dirty or self.deleted:
            raise RuntimeError("A reading session cannot write.")


def wait_until_reachable(sessions: Sessions, *, seconds: float = 30.0) -> None:
    """Wait for a PostgreSQL that is still starting, or whose name is not known yet. SQLite needs no waiting.

    Programs that run once, such as migrations, call this. Raises what connecting raised last after ``seconds``, each
    reason having been logged: nothing tells a server that will come from one that never will.
    """
    until = time.monotonic() + (seconds if sessions.engine.dialect.name == "postgresql" else 0)
    while True:
        try:
            sessions.engine.connect().close()
            return
        except exc.OperationalError as err:
            if time.monotonic() > until:
                raise
            log.warning("waiting for the database: %s", err.orig)
            time.sleep(1)


def transact(sessions: Sessions, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work(session, …)`` in one transaction and commit it; rerun it after a deadlock or a serialization failure.

    ``work`` must be idempotent: it is also rerun when the connection is lost during the commit, and then the first run
    may have been committed. Raises what ``work`` raises, Unavailable when the database cannot be reached or stays busy,
    OutOfSpace when its disk is full.
    """
    return _run(sessions.writing, lambda session: work(session, *args, **kwargs))


def read(sessions: Sessions, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work(session, …)`` in one transaction that only reads, and return its result.

    ``work`` should read at most one page of rows, so that the transaction is short. Raises as ``transact`` does.
    """
    return _run(sessions.reading, lambda session: work(session, *args, **kwargs))


def _run(begin: Callable[[], contextlib.AbstractContextManager[Session]], work: Callable[[Session], T]) -> T:
    until = time.monotonic() + _RERUN_SECONDS
    for attempt in range(RERUNS + 1):
        try:
            with begin() as session:
                return work(session)
        except exc.DBAPIError as raised:
            err = db_faults.find_first(raised)
            fault = db_faults.classify(err)
            if fault is Fault.FULL:
                raise errors.OutOfSpace("database_full", "The database's disk is full; nothing was changed.") from err
            if fault is Fault.OURS:
                raise
            if fault is Fault.AWAY or attempt == RERUNS or time.monotonic() > until:
                raise _make_unavailable() from err
            log.warning("transaction run again (%d of %d): %s", attempt + 1, RERUNS, err.orig)
            time.sleep(random.uniform(0.01, 0.05) * 4**attempt)
        except exc.TimeoutError as err:
            raise errors.Unavailable("database_unavailable", "The database has no free connection.") from err
    raise AssertionError("unreachable")


def _make_unavailable() -> errors.Unavailable:
    """Return the error for a database that cannot be reached. A lost commit may have been done all the same."""
    return errors.Unavailable("database_unavailable", "The database is busy or cannot be reached; try again.")


@contextlib.contextmanager
def try_lock(sessions: Sessions, name: str) -> Iterator[bool]:
    """Try to take the lock called ``name`` for the block, and yield whether this process holds it.

    It is an advisory lock on PostgreSQL, and a lock on a file beside the database on SQLite. The operating system or
    the server frees it when the process dies (ADR 3).
    """
    if sessions.engine.dialect.name == "postgresql":
        key = sa.func.hashtext(f"dermq:{name}")
        with sessions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            held = bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))))
            try:
                yield held
            finally:
                if held:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
        return
    path = Path(f"{sessions.engine.url.database}.{name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _make_engine(url: str, pool_size: int) -> Engine:
    address = sa.make_url(url)
    if address.get_backend_name() == "sqlite":
        if address.database and address.database != ":memory:":
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            address,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"isolation_level": None, "timeout": _SQLITE_BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    return sa.create_engine(
        address,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={"options": _POSTGRESQL_OPTIONS, **_POSTGRESQL_CONNECTION},
    )


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("dermq_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
