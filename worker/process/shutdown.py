"""How a drain learns that its worker is stopping.

Celery's warm shutdown waits for the running task and tells it nothing. So the parent touches a flag file named by its
pid, and each drain sets its own SIGTERM handler when it starts (one set at the start of the process is overwritten by
Celery) and looks, between steps, at the flag and at whether its parent still lives.
"""

import os
import signal
import socket
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from dermq.settings import Settings


def flag(settings: Settings, pid: int) -> Path:
    """The file that says that the worker whose parent process is ``pid`` is stopping."""
    return settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.stopping"


class Note:
    """In which a child tells the parent process ``pid`` with which status the worker ends, and why."""

    def __init__(self, settings: Settings, pid: int) -> None:
        self.path = settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.ends"

    def leave(self, status: int, reason: str) -> None:
        """Write the note, unless an earlier child has."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.write_text(f"{status} {reason}")

    def take(self) -> tuple[int, str] | None:
        """Read the note and remove it."""
        if not self.path.exists():
            return None
        status, _, reason = self.path.read_text().partition(" ")
        self.path.unlink()
        return int(status), reason


class Stop:
    """Whether to stop, for the length of one drain."""

    def __init__(self, settings: Settings) -> None:
        self._parent = os.getppid()
        self._flag = flag(settings, self._parent)
        self._told = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    @property
    def requested(self) -> bool:
        return self._told or os.getppid() != self._parent or self._flag.exists()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._told = True
