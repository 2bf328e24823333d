"""What errors of both databases mean."""

import errno
import sqlite3

import pytest
from psycopg import errors as postgresql
from sqlalchemy import exc

from dermq import db_faults
from dermq.db_faults import Fault


def sqlite(code: int, text: str, kind: type[exc.DBAPIError] = exc.OperationalError) -> exc.DBAPIError:
    raised = sqlite3.OperationalError(text) if kind is exc.OperationalError else sqlite3.IntegrityError(text)
    raised.sqlite_errorcode = code
    return kind("SQL", None, raised)


def psycopg(raised: Exception, kind: type[exc.DBAPIError], *, lost: bool = False) -> exc.DBAPIError:
    return kind("SQL", None, raised, connection_invalidated=lost)


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        (sqlite(sqlite3.SQLITE_FULL, "database or disk is full"), Fault.FULL),
        (sqlite(sqlite3.SQLITE_BUSY, "database is locked"), Fault.RERUN),
        (sqlite(sqlite3.SQLITE_BUSY, "the database is busy"), Fault.RERUN),
        (sqlite(sqlite3.SQLITE_ERROR, "no such table: batch"), Fault.OURS),
        (sqlite(sqlite3.SQLITE_ERROR, "no such column: is_locked"), Fault.OURS),
        (sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"), Fault.AWAY),
        (sqlite(sqlite3.SQLITE_IOERR, "disk I/O error"), Fault.AWAY),
        (sqlite(sqlite3.SQLITE_CONSTRAINT, "UNIQUE constraint failed", exc.IntegrityError), Fault.OURS),
        (psycopg(postgresql.DiskFull(), exc.OperationalError), Fault.FULL),
        (psycopg(postgresql.SerializationFailure(), exc.OperationalError), Fault.RERUN),
        (psycopg(postgresql.DeadlockDetected(), exc.DBAPIError), Fault.RERUN),
        (psycopg(postgresql.LockNotAvailable(), exc.DBAPIError), Fault.RERUN),
        (psycopg(postgresql.SerializationFailure(), exc.DBAPIError), Fault.RERUN),
        (psycopg(postgresql.ReadOnlySqlTransaction(), exc.InternalError), Fault.RERUN),
        (psycopg(postgresql.AdminShutdown(), exc.OperationalError), Fault.RERUN),
        (psycopg(postgresql.UndefinedTable(), exc.ProgrammingError), Fault.OURS),
        (psycopg(postgresql.UniqueViolation(), exc.IntegrityError), Fault.OURS),
        (psycopg(postgresql.InternalError_(), exc.InternalError, lost=True), Fault.RERUN),
        (psycopg(postgresql.InternalError_(), exc.InternalError), Fault.OURS),
    ],
    ids=lambda value: None if isinstance(value, Fault) else repr(value.orig)[:40],
)
def test_what_an_error_means(err: exc.DBAPIError, expected: Fault) -> None:
    assert db_faults.classify(err) is expected


def test_a_socket_without_room_means_a_full_disk() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert db_faults.classify(exc.OperationalError("SQL", None, full)) is Fault.FULL


def test_the_error_that_came_first_is_found_behind_lost_savepoints() -> None:
    cause = sqlite(sqlite3.SQLITE_FULL, "database or disk is full")
    between, last = (sqlite(sqlite3.SQLITE_ERROR, "no such savepoint: sa_savepoint_1") for _ in range(2))
    between.__context__, last.__context__ = cause, between
    assert db_faults.first(last) is cause


def test_an_error_that_hides_nothing_stays() -> None:
    shown = sqlite(sqlite3.SQLITE_BUSY, "database is locked")
    shown.__context__ = sqlite(sqlite3.SQLITE_FULL, "database or disk is full")
    assert db_faults.first(shown) is shown
    alone = sqlite(sqlite3.SQLITE_ERROR, "no such savepoint: sa_savepoint_1")
    alone.__context__ = KeyError()
    assert db_faults.first(alone) is alone
