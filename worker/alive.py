"""``python -m worker.alive``: ends with 0 when a worker of this host lives and has not stalled. For health checks."""

import socket
import sys

from sqlalchemy.orm import Session

from dermq import db, liveness
from dermq.models import Worker
from dermq.settings import Settings


def main(settings: Settings) -> bool:
    """Whether a worker of this host lives and gets on, by its row."""
    sessions = db.Sessions(settings.database)

    def work(session: Session) -> bool:
        mine = Worker.name.startswith(f"{socket.gethostname()}:", autoescape=True)
        return any(
            not pulse.is_stalled(liveness.measure_waited_seconds(session, pulse.queue), settings)
            for pulse in liveness.list_alive(session, settings, mine)
        )

    well = db.read(sessions, work)
    sessions.close()
    return well


if __name__ == "__main__":
    sys.exit(0 if main(Settings()) else 1)
