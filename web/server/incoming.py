"""What a client sends: bytes that the loop has read, and for uploads what a thread reads from the socket."""

import contextlib
import socket
import time
from collections.abc import Callable

from gunicorn.http.unreader import Unreader

from web.server.limits import Limits

_LEAST_READ_BYTES = 8_192
_MOST_READ_BYTES = 262_144


class TooSlow(TimeoutError):
    """Raised when a client sends an upload too slowly or for too long."""


class Incoming(Unreader):
    """The source of gunicorn's parser. It touches the socket for uploads only."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        super().__init__()
        self._sock = sock
        self._limits = limits
        self._before: Callable[[], None] | None = None
        self.is_open = False
        """Whether a part of the body is still with the client, and not all in what the loop has read."""
        self.at_end = False
        """Whether the client, or ``end``, ended the stream before the body was whole."""

    def open(self, before: Callable[[], None] | None) -> None:
        """Let a thread read an upload; ``before`` is called before it first waits for the client."""
        self.is_open = True
        self._before = before
        self._waited_seconds = 0.0
        self._bytes = 0
        self._deadline = time.monotonic() + self._limits.upload_seconds

    def skip(self) -> None:
        """Let the body, which is too large, be read neither by a thread nor by the parser."""
        self.is_open = self.at_end = True

    def close(self) -> None:
        """Keep threads from the socket: the upload has been read, or the loop drops the rest."""
        self.is_open = False

    def end(self) -> None:
        """End an upload as if the client had gone away; any thread may call this."""
        self.at_end = True
        with contextlib.suppress(OSError):  # the client has gone away
            self._sock.shutdown(socket.SHUT_RD)  # wakes the thread that waits for the client

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes, or none at the end. Raises TooSlow."""
        if not self.is_open or self.at_end:
            return b""
        if self._before is not None:
            before, self._before = self._before, None
            before()
        return self._receive(min(max(size_hint or 0, _LEAST_READ_BYTES), _MOST_READ_BYTES))

    def _receive(self, size: int) -> bytes:
        limits = self._limits
        while True:
            began = time.monotonic()
            left = min(limits.least_rate_seconds - self._waited_seconds, self._deadline - began)
            self._sock.settimeout(max(left, 0.001))
            try:
                piece = self._sock.recv(size)
            except TimeoutError:
                piece = None
            finally:
                self._sock.setblocking(False)
            now = time.monotonic()
            self._measure(now - began, len(piece or b""), now)
            if piece is not None:
                self.at_end |= not piece
                return b"" if self.at_end else piece

    def _measure(self, waited_seconds: float, received: int, now: float) -> None:
        """Check the rate. Only time spent waiting for the client counts, not what the server does with its bytes."""
        self._waited_seconds += waited_seconds
        self._bytes += received
        if now > self._deadline:
            raise TooSlow(f"The upload has taken more than {self._limits.upload_seconds:g} seconds.")
        if self._waited_seconds < self._limits.least_rate_seconds:
            return
        if self._bytes < self._limits.least_bytes:
            raise TooSlow(
                f"The upload is too slow: at least {self._limits.least_bytes_per_second:,} bytes a second are needed."
            )
        self._waited_seconds = 0.0
        self._bytes = 0
