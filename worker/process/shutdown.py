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
    """Return the path of the file that is there while the worker whose parent process is ``pid`` is stopping."""
    return settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.stopping"


class ExitNote:
    """A file in which a child tells its parent process ``pid`` the exit status of the worker, and the reason."""

    def __init__(self, settings: Settings, pid: int) -> None:
        self.path = settings.var_dir / "run" / f"{socket.gethostname()}.{pid}.ends"

    def write(self, status: int, reason: str) -> None:
        """Write the note, unless there is one already: the first reason counts."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.write_text(f"{status} {reason}")

    def take(self) -> tuple[int, str] | None:
        """Return the status and the reason and remove the note; None when there is none."""
        if not self.path.exists():
            return None
        status, _, reason = self.path.read_text().partition(" ")
        self.path.unlink()
        return int(status), reason


class StopRequest:
    """Tells a drain, for as long as it runs, whether its worker is to stop."""

    def __init__(self, settings: Settings) -> None:
        self._parent = os.getppid()
        self._flag = flag(settings, self._parent)
        self._signalled = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    @property
    def requested(self) -> bool:
        """Whether SIGTERM came, the parent is gone, or the parent touched its flag."""
        return self._signalled or os.getppid() != self._parent or self._flag.exists()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
