"""The pause after a fault of the surroundings, such as a database that is away."""

import time

from worker.process.heartbeat import Heartbeat
from worker.process.shutdown import StopRequest

PAUSE_SECONDS = (1.0, 30.0)
"""Least and greatest pause; it doubles from one fault to the next."""
_STEP_SECONDS = 0.1


class Backoff:
    """A pause that grows with every fault in a row."""

    def __init__(self, heartbeat: Heartbeat, stop: StopRequest) -> None:
        self._heartbeat = heartbeat
        self._stop = stop
        self.reset()

    def reset(self) -> None:
        """Begin again with the least pause: the last attempt succeeded."""
        self.seconds = PAUSE_SECONDS[0]

    def wait(self) -> None:
        """Sleep ``seconds``, at most until the worker is to stop, and double them.

        The pause is intended, so it counts as progress: a watchdog must not take it for a hang.
        """
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and not self._stop.requested:
            self._heartbeat.progress()
            time.sleep(_STEP_SECONDS)
        self.seconds = min(2 * self.seconds, PAUSE_SECONDS[1])
