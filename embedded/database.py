"""Checks without Alembic whether the database has the newest revision."""

import contextlib
import sqlite3
from pathlib import Path

from dermq.settings import ROOT, Settings

_SQLITE = "sqlite:///"


def is_current(settings: Settings) -> bool:
    """Return whether the SQLite database has the newest revision; always False for another database.

    The import of Alembic would take half a second at each start. The newest revision is the greatest number in the
    names of the migration files.
    """
    path = Path(settings.database.removeprefix(_SQLITE))
    if not settings.database.startswith(_SQLITE) or not path.is_file():
        return False
    newest = max(file.name.split("_")[0] for file in (ROOT / "migrations" / "versions").glob("[0-9]*_*.py"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
        except sqlite3.OperationalError:  # the table does not exist
            return False
