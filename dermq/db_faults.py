"""Classify errors of the database by what ``dermq.db`` does about them.

Errors of SQLite differ in result codes and texts (https://sqlite.org/rescode.html), those of PostgreSQL in SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html).
"""

import errno
import sqlite3
from enum import Enum, auto

from sqlalchemy import exc

RERUN_STATES = frozenset({"40001", "40P01", "55P03", "25006"})
"""Serialization failure, deadlock, lock timeout, read-only transaction (a standby that is not promoted yet)."""
FULL_STATES = frozenset({"53100"})


class Fault(Enum):
    """What to do about an error."""

    FULL = auto()
    """The disk of the database is full. Nothing was changed, and a rerun would not help."""
    RERUN = auto()
    """Busy, a deadlock, a serialization failure or a lost connection: the transaction may be run again."""
    AWAY = auto()
    """The database cannot be used, and a rerun would not help."""
    OURS = auto()
    """An error in our own SQL or values."""


def classify(err: exc.DBAPIError) -> Fault:
    """Return what to do about ``err``, which has to be a result of ``find_first``."""
    if _is_full(err):
        return Fault.FULL
    if _read_code(err) == sqlite3.SQLITE_ERROR:
        return Fault.OURS  # for example a missing table, which SQLite reports as an OperationalError
    if _may_rerun(err):
        return Fault.RERUN
    return Fault.AWAY if isinstance(err, exc.OperationalError) else Fault.OURS


def find_first(err: exc.DBAPIError) -> exc.DBAPIError:
    """Return the error that came first, which ``err`` may hide.

    SQLite may roll back a transaction by itself. The rollback to a savepoint then fails too and hides the cause.
    """
    while "no such savepoint" in str(err.orig) and isinstance(err.__context__, exc.DBAPIError):
        err = err.__context__
    return err


def _is_full(err: exc.DBAPIError) -> bool:
    if isinstance(err.orig, sqlite3.OperationalError):
        return _read_code(err) == sqlite3.SQLITE_FULL
    return _read_state(err) in FULL_STATES or getattr(err.orig, "errno", None) == errno.ENOSPC


def _may_rerun(err: exc.DBAPIError) -> bool:
    if isinstance(err.orig, sqlite3.OperationalError):
        return "locked" in str(err.orig) or "busy" in str(err.orig)
    return err.connection_invalidated or isinstance(err, exc.OperationalError) or _read_state(err) in RERUN_STATES


def _read_code(err: exc.DBAPIError) -> int | None:
    return getattr(err.orig, "sqlite_errorcode", None)


def _read_state(err: exc.DBAPIError) -> str | None:
    return getattr(err.orig, "sqlstate", None)
