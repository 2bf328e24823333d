"""Brings the database to the newest tables, and says cheaply when it has them."""

import contextlib
import sqlite3
from pathlib import Path

from dermq.settings import ROOT, Settings

_SQLITE = "sqlite:///"


def is_current(settings: Settings) -> bool:
    """Whether the SQLite database has the newest tables, told without importing Alembic: half a second a start.

    Revisions are numbered and in their files' names, so the newest is the last. False for any other database.
    """
    path = Path(settings.database.removeprefix(_SQLITE))
    if not settings.database.startswith(_SQLITE) or not path.is_file():
        return False
    newest = max(file.name.split("_")[0] for file in (ROOT / "migrations" / "versions").glob("[0-9]*_*.py"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
        except sqlite3.OperationalError:  # no such table
            return False
