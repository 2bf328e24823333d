"""The gunicorn worker: its loop reads and flushes for slow clients, its threads handle whole requests.

It is gunicorn's threaded worker, of which the handling of requests, the parser, signals, and the graceful stop are
used as they are. Only what waits for clients is replaced.
"""

import contextlib
import errno
import json
import resource
import selectors
import socket
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import ThreadWorker

from web.server.connection import Connection, Phase, Refusal
from web.server.limits import Limits
from web.server.outgoing import Spools
from web.server.waiting import Waiting

_ACCEPTED_AT_ONCE = 64
_READ_BYTES = 65_536
_RESERVED_FILES = 256
"""Open files that are not connections: the database's, uploads', listeners, logs."""
_MOST_FILES = 65_536
_STOP_SECONDS = 2.0
"""Time that a stopping web leaves to requests that clients have begun to send."""


def make_worker_class(limits: Limits) -> type[ThreadWorker]:
    """Return the class for gunicorn's setting ``worker_class``."""
    return type("Worker", (Worker,), {"limits": limits})


class Worker(ThreadWorker):
    """Waits for clients in the loop, and gives whole requests to threads."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting = Waiting(self.limits)
        self.spools = Spools(self.limits.spool_folder)

    def init_process(self) -> None:
        self.worker_connections = min(self.cfg.worker_connections, (_raise_open_files() - _RESERVED_FILES) // 2)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application; errors in its code are not caught, as nothing reloads it."""
        self.wsgi: Any = _announce_close(self.app.wsgi())

    # The loop

    def accept(self, listener: socket.socket) -> None:
        """Accept what has connected. With too many connections, the oldest that waits is closed for each new one."""
        for _ in range(_ACCEPTED_AT_ONCE):
            if self.nr_conns >= self.worker_connections - 1 and not self._close_oldest():
                return
            try:
                sock, client = listener.accept()
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno in (errno.EMFILE, errno.ENFILE) and self._close_oldest():
                    continue
                if err.errno in (errno.ECONNABORTED, errno.EPROTO):
                    continue
                raise
            self.nr_conns += 1
            self._read(Connection(self.cfg, sock, client, listener.getsockname(), self.limits, self.spools))

    def _read(self, connection: Connection, _: Any = None) -> None:
        """Read what a client has sent, and give the request to a thread when it is whole."""
        try:
            piece = connection.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            self._wait(connection, connection.wants)
            return
        except OSError:
            piece = b""
        if piece:
            connection.take(piece)
            self._advance(connection)
        else:
            self._close(connection)

    def _advance(self, connection: Connection) -> None:
        try:
            if connection.is_ready():
                self._leave(connection)
                self.enqueue_req(connection)
            else:
                self._wait(connection, connection.wants)
        except Refusal as refusal:
            self._refuse(connection, refusal)
        except Exception as err:  # gunicorn's parser has many errors, and handle_error answers each
            self.handle_error(connection.request, connection.sock, connection.client, err)
            self._finish(connection)

    def _wait(self, connection: Connection, phase: Phase) -> None:
        self.waiting.add(connection, phase)
        writes = phase is Phase.FLUSH
        callback = {Phase.FLUSH: self._flush, Phase.LINGER: self._discard}.get(phase, self._read)
        self._watch(connection, selectors.EVENT_WRITE if writes else selectors.EVENT_READ, callback)
        while self.waiting.buffered_bytes > self.limits.memory_bytes:
            oldest = self.waiting.find_oldest(Phase.BODY, Phase.HEAD)
            if oldest is None:
                return
            self._refuse(oldest, Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are being received."))

    def _watch(self, connection: Connection, events: int, callback: Any) -> None:
        if connection.watched == callback:
            return
        change = self.poller.register if connection.watched is None else self.poller.modify
        change(connection.socket, events, partial(callback, connection))
        connection.watched = callback

    def _leave(self, connection: Connection) -> None:
        """Take a connection out of the loop."""
        if connection.watched is not None:
            self.poller.unregister(connection.socket)
            connection.watched = None
        self.waiting.remove(connection)

    def _flush(self, connection: Connection, _: Any = None) -> None:
        """Send the rest of an answer; then begin with the next request, or close."""
        try:
            if not connection.outgoing.flush():
                self._wait(connection, Phase.FLUSH)
                return
        except OSError:
            self._close(connection)
            return
        if connection.keep:
            connection.finish_request()
            if connection.buffered_bytes:
                self._advance(connection)
            else:
                self._wait(connection, Phase.IDLE)
            return
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
        self._discard(connection)

    def _discard(self, connection: Connection, _: Any = None) -> None:
        """Drop what a client still sends, and close the connection when it has read the answer.

        If it were closed with unread bytes, the kernel would reset it, and the client might lose the answer.
        """
        try:
            piece = connection.socket.recv(_READ_BYTES * 4)
        except (BlockingIOError, InterruptedError):
            self._wait(connection, Phase.LINGER)
            return
        except OSError:
            piece = b""
        connection.dropped_bytes += len(piece)
        if not piece or connection.dropped_bytes > self.limits.linger_bytes:
            self._close(connection)
        else:
            self._wait(connection, Phase.LINGER)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        """Answer without the application, and close the connection."""
        with contextlib.suppress(OSError):
            connection.outgoing.write(_answer(refusal))
        self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        connection.keep = False
        connection.forget()
        self._flush(connection)

    def _close(self, connection: Connection) -> None:
        self._leave(connection)
        connection.outgoing.clear()
        util.close(connection.socket)
        self.nr_conns -= 1

    def _close_oldest(self) -> bool:
        oldest = self.waiting.find_oldest()
        if oldest is not None:
            self._close(oldest)
        return oldest is not None

    def murder_keepalived(self, force: bool = False) -> None:
        """End waits that are over; gunicorn's loop calls this each second."""
        for connection in self.waiting.list_all() if force else ():
            self._close(connection)
        for connection in self.waiting.list_expired():
            self._end_wait(connection)
        while self.spools.bytes > self.limits.spool_bytes and (oldest := self.waiting.find_oldest(Phase.FLUSH)):
            self._close(oldest)

    def _end_wait(self, connection: Connection) -> None:
        if connection.phase in (Phase.HEAD, Phase.BODY):
            self._refuse(connection, Refusal(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time."))
        elif connection.phase is Phase.FLUSH and self._took_enough(connection):
            self.waiting.remove(connection)  # a new phase, with new time
            self.waiting.add(connection, Phase.FLUSH)
        else:
            self._close(connection)

    def _took_enough(self, connection: Connection) -> bool:
        taken = connection.outgoing.sent - connection.sent_before
        connection.sent_before = connection.outgoing.sent
        return taken >= self.limits.least_bytes

    def murder_pending(self) -> None:
        """Do nothing: gunicorn keeps here what ``waiting`` keeps."""

    def _cap_keepalive(self, deadline: float) -> None:
        """Shorten the waits when the web stops."""
        self.waiting.cap(_STOP_SECONDS, Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.LINGER)

    # Threads

    def handle(self, conn: Connection) -> bool:
        """Handle one request in a thread; return whether the connection can be used for another."""
        request = conn.request
        try:
            conn.read_body()
            return bool(self.handle_request(request, conn)) and not conn.has_unread_body()
        except (NoMoreData, StopIteration) as err:
            self.log.debug("The client ended the connection early. %s", err)
        except OSError as err:
            if err.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self.log.exception("An error of the socket or of the folder of answers.")
        except Exception as err:  # the edge of the application: gunicorn answers and logs it
            self.handle_error(request, conn.sock, conn.client, err)
        return False

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Take a connection back from its thread; runs in the loop."""
        conn.keep = not fs.cancelled() and fs.exception() is None and fs.result()
        conn.sent_before = conn.outgoing.sent
        if not conn.keep:
            conn.forget()
        self._flush(conn)


def _announce_close(app: Any) -> Any:
    """Wrap the application, so that an answer tells whether the connection will be closed."""

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        def start(*args: Any) -> Any:
            environ["gunicorn.socket"].announce_close()
            return start_response(*args)

        return app(environ, start)

    return call


def _answer(refusal: Refusal) -> bytes:
    code = refusal.status.phrase.lower().replace(" ", "_")
    problem = {
        "type": f"urn:dermq:problem:{code}",
        "title": refusal.status.phrase,
        "status": int(refusal.status),
        "detail": str(refusal),
        "code": code,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {int(refusal.status)} {refusal.status.phrase}\r\nConnection: close\r\nRetry-After: 1\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _raise_open_files() -> int:
    """Raise the limit on open files as far as this process may; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if wanted > soft:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
