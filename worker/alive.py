"""``python -m worker.alive``: ends with 0 when a worker of this host said lately that it lives. For health checks."""

import socket
import sys

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db
from dermq.models import Worker
from dermq.settings import Settings


def main(settings: Settings) -> bool:
    """Whether a worker of this host lives, by its row."""
    sessions = db.Sessions(settings.database)
    since = db.now(-settings.worker_gone_seconds)

    def work(session: Session) -> bool:
        mine = sa.select(Worker.name).where(
            Worker.name.startswith(f"{socket.gethostname()}:", autoescape=True), Worker.seen_at > since
        )
        return session.scalar(mine.limit(1)) is not None

    alive = db.read(sessions, work)
    sessions.close()
    return alive


if __name__ == "__main__":
    sys.exit(0 if main(Settings()) else 1)
