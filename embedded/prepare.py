"""``python -m embedded.prepare VAR_DIR``: the newest tables, the local lab and its token.

A program of its own, so that the process manager, which lives long, never imports SQLAlchemy.
"""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

from dermq import db
from dermq.settings import ROOT, Settings
from embedded import local_lab


def main(settings: Settings) -> None:
    """Migrate the database and see that the local lab has a valid token."""
    sessions = db.Sessions(settings.database)
    config = Config(ROOT / "alembic.ini")
    with sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    local_lab.ensure_token(settings, sessions)
    sessions.close()


if __name__ == "__main__":
    main(Settings(var_dir=Path(sys.argv[1])))
