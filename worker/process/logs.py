"""How workers and the reaper log: one line an event, to standard error."""

import logging

from dermq.settings import Settings

_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def configure(settings: Settings) -> None:
    """Send the log of this process to standard error."""
    logging.basicConfig(level=settings.log_level, format=_FORMAT, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if settings.sql_echo:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
