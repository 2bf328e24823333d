"""How much a client may send, and for how long the server waits for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dermq.settings import Settings
from web.http import bodies


@dataclass(frozen=True)
class Limits:
    """Limits of one connection, and of what all connections may hold in memory and on disk."""

    spool_folder: Path
    """Folder of the temporary files that hold answers a client has not taken yet."""
    least_bytes_per_second: int
    """A client that sends an upload, or takes an answer, at a lower rate is disconnected."""
    least_rate_seconds: float
    """The time over which the rate is measured."""
    upload_seconds: float
    """An upload may take this long."""
    is_streamed: Callable[[str, str, str], bool] = bodies.is_streamed
    """Tells by method, path and content type whether a thread reads the body; all others are read before."""
    head_bytes: int = 16_384
    body_bytes: int = bodies.FORM_BYTES
    """Bytes of a body that is read before a thread gets the request."""
    idle_seconds: float = 15.0
    """Time that a connection may be open without a request."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    linger_seconds: float = 5.0
    """Time for which the rest of a refused body is read and dropped, so that the client can read the answer."""
    linger_bytes: int = 64_000_000
    memory_bytes: int = 64_000_000
    """Bytes of incomplete requests together."""
    spool_bytes: int = 256_000_000
    """Bytes of answers together that clients have not taken."""

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            spool_folder=settings.var_dir,
            least_bytes_per_second=settings.least_bytes_per_second,
            least_rate_seconds=settings.least_rate_seconds,
            upload_seconds=settings.upload_seconds,
        )

    @property
    def least_bytes(self) -> float:
        """Return how many bytes must pass in ``least_rate_seconds``."""
        return self.least_bytes_per_second * self.least_rate_seconds
