"""The web under gunicorn as a process of its own, and clients that write their requests byte by byte."""

import contextlib
import http.client
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from dermq import access_tokens, db, labs
from dermq.settings import ROOT
from tests.servers import free_port


class Server:
    """A running web with few threads, and tokens of two labs."""

    def __init__(self, process: psutil.Popen, port: int, tokens: list[str]) -> None:
        self.process = process
        self.port = port
        self.headers, self.other_headers = ({"Authorization": f"Bearer {token}"} for token in tokens)
        self.authorization = f"Authorization: Bearer {tokens[0]}"

    def call(
        self, method: str, path: str, body: bytes = b"", *, other: bool = False, kind: str = "image/jpeg"
    ) -> tuple[int, Any]:
        """Call the API for one of the labs, and return the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            own = self.other_headers if other else self.headers
            connection.request(method, f"/api/v1{path}", body, own | {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def create(self, *, other: bool = False) -> str:
        status, batch = self.call("POST", "/batches", b'{"name": "b"}', other=other, kind="application/json")
        assert status == 201
        return str(batch["id"])

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Open a connection and send bytes on it."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(sent)
        return client

    def begin_upload(self, batch: str, name: str) -> socket.socket:
        """Announce an upload, send a part of it and then stall."""
        path = f"/api/v1/batches/{batch}/images?name={name}"
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n{self.authorization}\r\n\r\n"
        return self.connect(head.encode() + b"abc")

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes, and return all that the web answers until it closes the connection."""
        return read_all(self.connect(sent))

    def statuses(self, sent: bytes) -> list[int]:
        """Send bytes, and return the status of each answer until the web closes the connection."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self.exchange(sent))]

    def live_seconds(self) -> float:
        """Return the longest of five times that the web took to say that it is live, each on a new connection."""
        times = []
        for _ in range(5):
            began = time.monotonic()
            assert self.statuses(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") == [200]
            times.append(time.monotonic() - began)
        return max(times)

    def workers(self) -> list[psutil.Process]:
        return list(self.process.children())


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the other side closes the connection; then close it too."""
    found = bytearray()
    with contextlib.closing(client), contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65_536):
            found += piece
    return bytes(found)


@contextlib.contextmanager
def serve(folder: Path, database_url: str, conf: str = "web/gunicorn_conf.py", **settings: object) -> Iterator[Server]:
    """Run the web during the block, with four threads unless ``settings`` say otherwise."""
    sessions = db.Sessions(database_url)
    tokens = []
    for name in ("lab", "other lab"):
        lab = db.transact(sessions, labs.add, name)
        tokens.append(db.transact(sessions, access_tokens.issue, lab, "test"))
    sessions.close()
    port = free_port()
    wanted = {"var_dir": folder, "database_url": database_url, "port": port, "web_threads": 4, **settings}
    environment = os.environ | {f"DERMQ_{name.upper()}": str(value) for name, value in wanted.items()}
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "web.app:create_app()"]
    with (folder / "web.log").open("ab") as log:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stderr=log)
    try:
        _wait_until_live(port)
        yield Server(process, port, tokens)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # the test has stopped it
            process.terminate()
        process.wait(timeout=30)


def _wait_until_live(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)
