"""The web under gunicorn, over real sockets, for behaviour that a test client in the same process cannot show."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dermq import access_tokens, db, labs
from dermq.settings import ROOT
from tests import samples
from tests.servers import free_port


class Server:
    """A running web with four threads, two of which may receive bodies."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.headers = {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, f"/api/v1{path}", body, self.headers | headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def create(self) -> str:
        status, batch = self.call("POST", "/batches", b'{"name": "b"}', **{"Content-Type": "application/json"})
        assert status == 201
        return str(batch["id"])

    def begin_upload(self, batch: str, name: str) -> socket.socket:
        """Announce an upload, send a part of it and then stall."""
        client = socket.create_connection(("127.0.0.1", self.port))
        head = f"PUT /api/v1/batches/{batch}/images?name={name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in self.headers.items())
        client.sendall(head.encode() + b"\r\nabc")
        return client


@pytest.fixture
def server(tmp_path: Path, migrated_sqlite_url: str) -> Iterator[Server]:
    sessions = db.Sessions(migrated_sqlite_url)
    lab = db.transact(sessions, labs.add, "lab")
    token = db.transact(sessions, access_tokens.issue, lab, "test")
    sessions.close()
    port = free_port()
    environment = {
        "DERMQ_VAR_DIR": str(tmp_path),
        "DERMQ_DATABASE_URL": migrated_sqlite_url,
        "DERMQ_PORT": str(port),
        "DERMQ_WEB_THREADS": "4",
        "DERMQ_UPLOAD_SILENT_SECONDS": "2",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield Server(port, token)
    process.terminate()
    process.wait(timeout=30)


def test_a_client_that_falls_silent_loses_its_place(server: Server) -> None:
    batch = server.create()
    silent = [server.begin_upload(batch, f"{n}.jpg") for n in range(2)]
    time.sleep(0.5)
    status, problem = server.call("PUT", f"/batches/{batch}/images?name=c.jpg", samples.jpeg())
    assert (status, problem["code"]) == (503, "busy_receiving")
    time.sleep(2.5)
    assert server.call("PUT", f"/batches/{batch}/images?name=c.jpg", samples.jpeg())[0] == 202
    for client in silent:
        client.close()


def test_who_is_still_sending_hears_why_it_is_refused(server: Server) -> None:
    large = bytes(20_000_000)
    status, problem = server.call("PUT", f"/batches/{'0' * 8}-0000-7000-8000-{'0' * 12}/images?name=a.jpg", large)
    assert (status, problem["code"]) == (404, "no_batch")
    batch = server.create()
    status, problem = server.call("PUT", f"/batches/{batch}/images?name=..%2Fa.jpg", large)
    assert (status, problem["code"]) == (422, "bad_name")
