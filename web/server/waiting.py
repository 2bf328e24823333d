"""The connections that wait for their client without a thread, in the order in which they began to wait."""

import time
from collections.abc import Iterator

from web.server.connection import Connection, Phase
from web.server.limits import Limits

_GIVEN_UP_FIRST = (Phase.IDLE, Phase.LINGER, Phase.HEAD, Phase.BODY, Phase.FLUSH)
"""When there are too many connections, those are closed first that lose least."""


class Waiting:
    """Waiting connections by phase. In each phase all wait equally long, so the oldest is the first to end."""

    def __init__(self, limits: Limits) -> None:
        self._seconds = {
            Phase.IDLE: limits.idle_seconds,
            Phase.HEAD: limits.head_seconds,
            Phase.BODY: limits.body_seconds,
            Phase.FLUSH: limits.least_rate_seconds,
            Phase.LINGER: limits.linger_seconds,
        }
        self._phases: dict[Phase, dict[Connection, None]] = {phase: {} for phase in Phase}
        self.buffered_bytes = 0
        """Bytes of all incomplete requests."""
        self._buffered: dict[Connection, int] = {}

    def add(self, connection: Connection, phase: Phase) -> None:
        """Let a connection wait. If it waits for the same thing already, it gets no more time."""
        self._count(connection, connection.buffered_bytes)
        if connection.phase is phase:
            return
        self._leave(connection)
        self._phases[phase][connection] = None
        connection.phase = phase
        connection.deadline = time.monotonic() + self._seconds[phase]

    def remove(self, connection: Connection) -> None:
        self._count(connection, 0)
        self._leave(connection)

    def cap(self, seconds: float, *phases: Phase) -> None:
        """End the wait of connections in these phases at most ``seconds`` from now."""
        until = time.monotonic() + seconds
        for phase in phases:
            for connection in self._phases[phase]:
                connection.deadline = min(connection.deadline, until)

    def list_expired(self) -> Iterator[Connection]:
        """Yield the connections whose time is over. The caller moves or removes each before it takes the next."""
        now = time.monotonic()
        for connections in self._phases.values():
            while (oldest := next(iter(connections), None)) is not None and oldest.deadline <= now:
                yield oldest

    def list_all(self) -> list[Connection]:
        return [connection for connections in self._phases.values() for connection in connections]

    def find_oldest(self, *phases: Phase) -> Connection | None:
        """Return the connection that has waited longest in the first phase that has any; None when none waits."""
        return next(
            (next(iter(self._phases[phase])) for phase in phases or _GIVEN_UP_FIRST if self._phases[phase]), None
        )

    def _leave(self, connection: Connection) -> None:
        if connection.phase is not None:
            del self._phases[connection.phase][connection]
            connection.phase = None

    def _count(self, connection: Connection, count: int) -> None:
        self.buffered_bytes += count - self._buffered.pop(connection, 0)
        if count:
            self._buffered[connection] = count
