"""The part of an answer that a client has not taken yet. It is kept in memory, then in a file, so no thread waits."""

import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

_MEMORY_BYTES = 32_768
_SEND_BYTES = 262_144


class Spools:
    """Counts the bytes of all answers that clients have not taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bytes = 0
        self._lock = threading.Lock()

    def open(self) -> BinaryIO:
        """Return a temporary file, which is in memory as long as it is small."""
        return cast(BinaryIO, tempfile.SpooledTemporaryFile(_MEMORY_BYTES, dir=str(self._folder)))

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count


class Outgoing:
    """The answers of one connection. First a thread writes and then the loop flushes, never both at one time."""

    def __init__(self, sock: socket.socket, spools: Spools) -> None:
        self._sock = sock
        self._spools = spools
        self._file: BinaryIO | None = None
        self._start = self._end = 0
        self.sent = 0
        """Bytes that the client, or the kernel for it, has taken so far."""

    @property
    def pending(self) -> int:
        return self._end - self._start

    def write(self, data: bytes | memoryview) -> None:
        """Send what the client takes at once and keep the rest. Raises OSError when the client is gone."""
        rest = memoryview(data)
        if not self.pending or self.flush():
            rest = rest[self._send(rest) :]
        if not rest:
            return
        if self._file is None:
            self._file = self._spools.open()
        self._file.seek(self._end)
        self._file.write(rest)
        self._end += len(rest)
        self._spools.add(len(rest))

    def write_file(self, file: BinaryIO, offset: int, count: int) -> None:
        """Write ``count`` bytes of ``file`` from ``offset`` on."""
        while count > 0 and (piece := os.pread(file.fileno(), min(count, _SEND_BYTES), offset)):
            self.write(piece)
            offset += len(piece)
            count -= len(piece)

    def flush(self) -> bool:
        """Send what the client takes of the rest; return whether nothing is left. Raises OSError."""
        while self._file is not None:
            self._file.seek(self._start)
            piece = self._file.read(_SEND_BYTES)
            if not piece:
                self.clear()
                break
            sent = self._send(memoryview(piece))
            self._start += sent
            self._spools.add(-sent)
            if sent < len(piece):
                return False
        return True

    def clear(self) -> None:
        """Forget the rest."""
        self._spools.add(-self.pending)
        self._start = self._end = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _send(self, data: memoryview) -> int:
        total = 0
        while total < len(data):
            try:
                total += self._sock.send(data[total : total + _SEND_BYTES])
            except (BlockingIOError, InterruptedError):
                break
        self.sent += total
        return total
