"""What an error of the database means, and so what ``dermq.db`` does about it.

SQLite tells its errors apart by result codes and texts (https://sqlite.org/rescode.html), PostgreSQL by SQLSTATE
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
    """The database's disk is full: nothing was changed, and a rerun would not help."""
    RERUN = auto()
    """Busy, a deadlock, a serialization failure or a lost connection: the transaction may be run again."""
    AWAY = auto()
    """The database cannot be used, and a rerun would not help."""
    OURS = auto()
    """Our SQL or our values are to blame."""


def classify(err: exc.DBAPIError) -> Fault:
    """Return what ``err`` means; give it the error that ``first`` returns."""
    if _is_full(err):
        return Fault.FULL
    if _code(err) == sqlite3.SQLITE_ERROR:
        return Fault.OURS  # a table that is missing, for example, which SQLite calls operational
    if _may_rerun(err):
        return Fault.RERUN
    return Fault.AWAY if isinstance(err, exc.OperationalError) else Fault.OURS


def first(err: exc.DBAPIError) -> exc.DBAPIError:
    """Return the error behind ``err`` that came first.

    SQLite may end a transaction by itself. Then the rollback to a savepoint fails as well and hides what went wrong.
    """
    while "no such savepoint" in str(err.orig) and isinstance(err.__context__, exc.DBAPIError):
        err = err.__context__
    return err


def _is_full(err: exc.DBAPIError) -> bool:
    if isinstance(err.orig, sqlite3.OperationalError):
        return _code(err) == sqlite3.SQLITE_FULL
    return _state(err) in FULL_STATES or getattr(err.orig, "errno", None) == errno.ENOSPC


def _may_rerun(err: exc.DBAPIError) -> bool:
    if isinstance(err.orig, sqlite3.OperationalError):
        return "locked" in str(err.orig) or "busy" in str(err.orig)
    return err.connection_invalidated or isinstance(err, exc.OperationalError) or _state(err) in RERUN_STATES


def _code(err: exc.DBAPIError) -> int | None:
    return getattr(err.orig, "sqlite_errorcode", None)


def _state(err: exc.DBAPIError) -> str | None:
    return getattr(err.orig, "sqlstate", None)
