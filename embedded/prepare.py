"""``python -m embedded.prepare VAR_DIR``: migrates the database and creates the local lab and its token.

This is a program of its own, so that the process manager, which runs for long, need not import SQLAlchemy.
"""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

from dermq import db
from dermq.settings import ROOT, Settings
from embedded import local_lab


def main(settings: Settings) -> None:
    """Migrate the database to the newest revision and ensure that the local lab has a valid token. Commits."""
    sessions = db.Sessions(settings.database)
    db.wait_until_reachable(sessions)
    config = Config(ROOT / "alembic.ini")
    with sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    local_lab.ensure_token(settings, sessions)
    sessions.close()


if __name__ == "__main__":
    main(Settings(var_dir=Path(sys.argv[1])))
