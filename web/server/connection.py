"""One client's connection: what it has sent so far, and the socket as gunicorn's request handling sees it."""

import io
import socket
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, BinaryIO

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidHeader, LimitRequestHeaders
from gunicorn.http.message import Request

from web.server import framing
from web.server.incoming import Incoming
from web.server.limits import Limits
from web.server.outgoing import Outgoing, Spools

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    """What the loop waits for. A connection whose request a thread handles is in no phase."""

    IDLE = auto()
    """The first byte of a request."""
    HEAD = auto()
    """The rest of a head."""
    BODY = auto()
    """The rest of a small body."""
    FLUSH = auto()
    """The client takes the rest of the answer."""
    LINGER = auto()
    """The client reads the answer and closes the connection; what it still sends is dropped."""


class Refusal(Exception):
    """Raised when the loop itself answers a request that it has not read to its end."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Channel:
    """The socket as gunicorn's threads see it. Writing never waits, and reading is left to ``Incoming``."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def sendall(self, data: bytes) -> None:
        self._connection.outgoing.write(data)

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int = 0) -> int:
        self._connection.outgoing.write_file(file, offset, count)
        return count

    def end_upload(self) -> None:
        """End the upload that a thread reads, as if the client had gone away."""
        self._connection.receive.end()

    def announce_close(self) -> None:
        """Let the answer say that the connection will be closed, if a part of the request's body was not read."""
        if self._connection.has_unread_body():
            self._connection.request.force_close()

    def gettimeout(self) -> float:
        return 0.0

    def shutdown(self, how: int) -> None:
        """Refuse, so that gunicorn does not wait for the client in a thread; the loop closes connections."""
        raise OSError("The loop closes connections.")

    def close(self) -> None:
        """Do nothing; the loop closes connections."""


class Connection:
    """One client's connection. The loop owns it, but for the time that a thread handles its request."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, limits: Limits, spools: Spools) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.client, self.server = client, server
        self.phase: Phase | None = None
        self.deadline = 0.0
        self.watched: Any = None
        """What the loop calls when the socket is ready, or None when it does not watch the socket."""
        self.sent_before = 0
        """Bytes of answers that the client had taken when its rate was last measured."""
        self.dropped_bytes = 0
        self.keep = False
        """Whether the connection can take another request after this one."""
        self.request: Any = None
        self.receive = Incoming(sock, limits)
        self.outgoing = Outgoing(sock, spools)
        self.sock = Channel(self)
        self._cfg = cfg
        self._limits = limits
        self._requests = 0
        self._read = bytearray()
        """Bytes that the loop has read and that no request has taken."""
        self._searched = 0
        self._framing: framing.Framing | None = None

    @property
    def buffered_bytes(self) -> int:
        return len(self._read)

    @property
    def wants(self) -> Phase:
        """Return what of a request is missing."""
        if self.request is not None:
            return Phase.BODY
        return Phase.HEAD if self._read else Phase.IDLE

    def take(self, piece: bytes) -> None:
        """Keep what the client has sent."""
        self._read += piece
        if self._framing is not None:
            self._framing.feed(piece)

    def is_ready(self) -> bool:
        """Return whether a thread can handle the request.

        Raises Refusal, or what gunicorn's parser raises for a malformed head.
        """
        if self.request is None and not self._parse_head():
            return False
        if self._framing is None:
            return True
        if not self._framing.complete:
            if len(self._read) > self._limits.body_bytes:
                raise Refusal(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"The body has more than {self._limits.body_bytes:,} bytes, the most that is accepted here.",
                )
            return False
        self._framing = None
        self.receive.unread(bytes(self._read))
        self._read.clear()
        return True

    def read_body(self) -> None:
        """Take the small body off the bytes that were read, before a thread handles the request.

        Raises what gunicorn's parser raises for a malformed body.
        """
        if not self.receive.is_open and not self._has_length(0):
            self.request.body = io.BytesIO(self.request.body.read())

    def has_unread_body(self) -> bool:
        """Return whether a part of the body was not read, so that the next request cannot be found."""
        return self.receive.is_open and not self._is_consumed()

    def finish_request(self) -> None:
        """Make ready for the next request, of which a part may have been read already."""
        self.receive.close()
        self.request = None
        self._searched = 0
        self._read += self.receive.take_buffered()

    def forget(self) -> None:
        """Free what was read of a connection that takes no other request."""
        self.request = self._framing = None
        self._read.clear()
        self.receive.close()
        self.receive.take_buffered()

    def _parse_head(self) -> bool:
        end = self._read.find(b"\r\n\r\n", self._searched)
        if max(end, len(self._read) if end < 0 else 0) > self._limits.head_bytes:
            raise LimitRequestHeaders(f"The head has more than {self._limits.head_bytes:,} bytes")
        if end < 0:
            if self._read.count(b"\n") != self._read.count(b"\r\n"):
                raise InvalidHeader("bare LF as line terminator")
            self._searched = max(0, len(self._read) - 3)
            return False
        self.receive.unread(bytes(self._read))
        self._read.clear()
        self._requests += 1
        self.request = Request(self._cfg, self.receive, self.client, self._requests)
        self._prepare_body()
        return True

    def _prepare_body(self) -> None:
        """Decide who reads the body: nobody, a thread, or the loop."""
        request = self.request
        expects = request._expected_100_continue
        request._expected_100_continue = False  # gunicorn would answer it before anybody wants the body
        self._framing = None
        if self._has_length(0):
            return
        kinds = [value for name, value in request.headers if name == "CONTENT-TYPE"]
        if self._limits.is_streamed(request.method, request.path, kinds[0] if kinds else ""):
            self.receive.open(self._send_continue if expects else None)
            return
        reader = request.body.reader
        if isinstance(reader, LengthReader) and reader.length > self._limits.body_bytes:
            # The application answers that it is too large, with all that it says in an answer.
            self.receive.skip()
            return
        self._framing = framing.Chunked() if isinstance(reader, ChunkedReader) else framing.Length(reader.length)
        self.take(self.receive.take_buffered())
        if expects and not self._framing.complete:
            self._send_continue()

    def _send_continue(self) -> None:
        self.outgoing.write(_CONTINUE)

    def _has_length(self, length: int) -> bool:
        reader = self.request.body.reader
        return isinstance(reader, LengthReader) and reader.length == length

    def _is_consumed(self) -> bool:
        reader = self.request.body.reader
        if self.request.body.failed or self.receive.at_end:
            return False
        return reader.length <= 0 if isinstance(reader, LengthReader) else reader.parser is None
