"""A TCP connection to a server that can be cut where it hurts: around a COMMIT."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Literal, Self

Cut = Literal["before", "after"]


class Wire:
    """Passes bytes between clients and a server until it is told to cut one COMMIT's connection.

    ``before``: the server never hears of the COMMIT. ``after``: it commits, and its answer is lost. The client cannot
    tell one from the other.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut: Cut | None = None
        self._open: list[socket.socket] = []
        self.cuts = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        for each in self._open:
            each.close()

    def cut_commit(self, cut: Cut) -> None:
        """Cut the connection that commits next."""
        self._cut = cut

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                threading.Thread(target=self._pass_requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_answers, args=(client, server), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        for chunk in _chunks(client):
            if self._cut and b"COMMIT" in chunk.replace(b"READ COMMITTED", b""):
                cut, self._cut = self._cut, None
                self.cuts += 1
                _shut(client)
                if cut == "before":
                    break
            with contextlib.suppress(OSError):  # it hung up meanwhile
                server.sendall(chunk)
        _shut(server, how=socket.SHUT_WR)

    def _pass_answers(self, client: socket.socket, server: socket.socket) -> None:
        for chunk in _chunks(server):
            with contextlib.suppress(OSError):  # cut; what the server still says is lost
                client.sendall(chunk)
        _shut(client)


def _chunks(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while chunk := end.recv(65536):
            yield chunk


def _shut(end: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)
