"""The back-off after a Transient error, such as an unreachable database."""

import time

from worker.process.heartbeat import Heartbeat
from worker.process.shutdown import StopRequest

PAUSE_SECONDS = (1.0, 30.0)
"""The shortest and the longest pause. The pause doubles after each error in a row."""
_STEP_SECONDS = 0.1


class Backoff:
    """Pauses that double after each error in a row."""

    def __init__(self, heartbeat: Heartbeat, stop: StopRequest) -> None:
        self._heartbeat = heartbeat
        self._stop = stop
        self.reset()

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self.seconds = PAUSE_SECONDS[0]

    def wait(self) -> None:
        """Sleep for ``seconds`` or until the worker must stop, then double ``seconds``.

        The pause counts as progress, so that the watchdog does not take it for a hang.
        """
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and not self._stop.requested:
            self._heartbeat.note_progress()
            time.sleep(_STEP_SECONDS)
        self.seconds = min(2 * self.seconds, PAUSE_SECONDS[1])
