"""Tells a drain that its worker must stop, and tells the parent process why a child ended the worker.

Celery's warm shutdown waits for the running task but does not notify it. So the parent process creates a flag file,
named by its pid. Each drain checks between its steps whether the flag exists and whether its parent is still alive.
Each drain also sets its own SIGTERM handler, because Celery overwrites a handler that is set when the process starts.
"""

import os
import signal
import socket
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from dermq.settings import Settings


def find_flag(settings: Settings, pid: int) -> Path:
    """Return the path of the flag file. It exists while the worker with the parent process ``pid`` is stopping."""
    return settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.stopping"


class ExitNote:
    """A file by which a child process gives its parent ``pid`` the worker's exit status and the reason."""

    def __init__(self, settings: Settings, pid: int) -> None:
        self.path = settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.ends"

    def write(self, status: int, reason: str) -> None:
        """Write the note, unless there is one already: the first reason is kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.write_text(f"{status} {reason}")

    def take(self) -> tuple[int, str] | None:
        """Return the status and the reason, and remove the note; return None when there is no note."""
        if not self.path.exists():
            return None
        status, _, reason = self.path.read_text().partition(" ")
        self.path.unlink()
        return int(status), reason


class StopRequest:
    """Tells a drain, while it runs, whether its worker must stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parent = os.getppid()
        self._flag = find_flag(settings, self._parent)
        self._signalled = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    @property
    def requested(self) -> bool:
        """Whether SIGTERM was received, the parent has ended, or the parent's flag file exists."""
        return self._signalled or os.getppid() != self._parent or self._flag.exists()

    @property
    def by_watchdog(self) -> bool:
        """Whether the watchdog ends this worker, because it stalled."""
        return ExitNote(self._settings, self._parent).path.exists()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
