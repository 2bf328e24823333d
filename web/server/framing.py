"""Finds the end of a body while it arrives, without reading it twice. gunicorn's parser reads and checks it later."""

from typing import Protocol

_LINE_BYTES = 1_000
_TRAILER_BYTES = 8_000


class Framing(Protocol):
    """Follows the pieces of a body and finds when it is complete."""

    complete: bool

    def feed(self, piece: bytes) -> None: ...


class Length:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._missing = length
        self.complete = length <= 0

    def feed(self, piece: bytes) -> None:
        self._missing -= len(piece)
        self.complete = self._missing <= 0


class Chunked:
    """A body in chunks (RFC 9112, section 7.1). A malformed one counts as complete; the parser reports it."""

    def __init__(self) -> None:
        self.complete = False
        self._line = bytearray()
        self._skip = 0
        """Bytes of the present chunk that are still to come, with the line break after it."""
        self._trailer_bytes: int | None = None
        """Bytes of the trailers so far; None before the last chunk."""

    def feed(self, piece: bytes) -> None:
        at = 0
        while at < len(piece) and not self.complete:
            if self._skip:
                step = min(self._skip, len(piece) - at)
                self._skip -= step
                at += step
                continue
            end = piece.find(b"\n", at) + 1
            line = piece[at : end or None]
            at += len(line)
            self._line += line
            if end:
                self._read_line()
            elif len(self._line) > _LINE_BYTES:
                self.complete = True

    def _read_line(self) -> None:
        line = bytes(self._line).strip(b"\r\n")
        self._line.clear()
        if self._trailer_bytes is not None:
            self._trailer_bytes += len(line)
            self.complete = not line or self._trailer_bytes > _TRAILER_BYTES
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        if size < 0:
            self.complete = True
        elif size == 0:
            self._trailer_bytes = 0
        else:
            self._skip = size + len(b"\r\n")
