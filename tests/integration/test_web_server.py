"""The web under gunicorn, over real sockets, for behaviour that a test client in the same process cannot show."""

import contextlib
import hashlib
import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import samples, strangers, webserver
from tests.webserver import Server

JSON = "Content-Type: application/json"
FORM = "application/x-www-form-urlencoded"
LIVE = strangers.get("/health/live")
LAST = strangers.get("/health/live", "Connection: close")
LARGE = "/api/docs/swagger-ui/swagger-ui-bundle.js"
PATIENCE_SECONDS = 15.0
"""A web that waits for a stranger in a thread takes longer than this, or does not answer at all."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Server]:
    """A web with four threads, two of which may receive uploads, one for each lab when both want one.

    All tests share it, so each also shows that the ones before it have left nothing behind.
    """
    folder = tmp_path_factory.mktemp("web")
    database = folder / "dermq.sqlite3"
    shutil.copyfile(sqlite_template, database)
    with webserver.serve(folder, f"sqlite:///{database}", least_rate_seconds=2) as found:
        yield found


@pytest.fixture
def impatient(tmp_path: Path, migrated_sqlite_url: str) -> Iterator[Server]:
    """A web that gives clients very little time."""
    with webserver.serve(tmp_path, migrated_sqlite_url, conf="tests/impatient_conf.py") as found:
        yield found


def assert_others_go_on(server: Server) -> None:
    """Check that health and another lab's upload are as quick as ever."""
    assert server.live_seconds() < PATIENCE_SECONDS
    began = time.monotonic()
    batch = server.create(other=True)
    status, answer = server.call("PUT", f"/batches/{batch}/images?name=a.jpg", samples.jpeg(), other=True)
    assert status == 202, answer
    assert time.monotonic() - began < PATIENCE_SECONDS


STRANGERS = {
    "half heads that go on": (2_000, b"GET /health/live HTTP/1.1\r\nHost: local", b"host\r\nX: a"),
    "half heads that stop": (2_000, b"GET /health/live HTTP/1.1\r\nHost: local", b""),
    "idle": (400, b"", b""),
    "bodies of sign-ins": (200, strangers.post("/sign-in", 5_000, FORM), b"token=abc"),
    "bodies in chunks": (200, strangers.get("/sign-in", "Transfer-Encoding: chunked") + b"5\r\nab", b"c"),
    "uploads without a token": (200, strangers.put("/api/v1/batches/x/images?name=a", 5_000), b"a"),
    "bodies of unknown calls": (200, strangers.put("/api/v1/nothing", 5_000), b"a"),
    "forms with files": (200, strangers.post("/api/v1/batches", 5_000, "multipart/form-data; boundary=b"), b"a"),
    "readers that do not read": (50, strangers.get(LARGE) * 5, b""),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_that_take_their_time_cost_nobody_else_any(server: Server, kind: str) -> None:
    count, begin, drip = STRANGERS[kind]
    with strangers.hold(server.port, count, begin, drip):
        assert_others_go_on(server)


@pytest.mark.parametrize("kind", ["uploads", "forms with files", "JSON"])
def test_a_lab_that_sends_slowly_costs_another_nothing(server: Server, kind: str) -> None:
    batch = server.create()
    begin = {
        "uploads": strangers.put(f"/api/v1/batches/{batch}/images?name=a.jpg", 50_000, server.authorization),
        "forms with files": strangers.post(
            "/api/v1/batches", 50_000, "multipart/form-data; boundary=b", server.authorization
        ),
        "JSON": strangers.post("/api/v1/batches", 50_000, "application/json", server.authorization),
    }[kind]
    with strangers.hold(server.port, 200, begin, b"a"):
        assert_others_go_on(server)


def test_a_client_that_falls_silent_loses_its_place(server: Server) -> None:
    batch = server.create()
    silent = [server.begin_upload(batch, f"{n}.jpg") for n in range(2)]
    time.sleep(0.5)
    status, problem = server.call("PUT", f"/batches/{batch}/images?name=c.jpg", samples.jpeg())
    assert (status, problem["code"]) == (503, "busy_receiving")
    for client in silent:
        answer = webserver.read_all(client)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"1,000 bytes a second" in answer
    assert server.call("PUT", f"/batches/{batch}/images?name=c.jpg", samples.jpeg())[0] == 202


def test_an_upload_of_the_lab_with_too_many_is_given_up_for_another(server: Server) -> None:
    batch, other = server.create(), server.create(other=True)
    slow = [server.begin_upload(batch, f"{n}.jpg") for n in range(2)]
    time.sleep(1.0)
    assert server.call("PUT", f"/batches/{other}/images?name=a.jpg", samples.jpeg(), other=True)[0] == 202
    given_up, too_slow = sorted(map(webserver.read_all, slow), reverse=True)
    assert given_up.startswith(b"HTTP/1.1 503 ") and b'"place_given_up"' in given_up and b"Retry-After: " in given_up
    assert too_slow.startswith(b"HTTP/1.1 408 ")


def test_an_upload_may_not_take_for_ever(tmp_path: Path, migrated_sqlite_url: str) -> None:
    with webserver.serve(tmp_path, migrated_sqlite_url, upload_seconds=1, least_bytes_per_second=1) as server:
        answer = webserver.read_all(server.begin_upload(server.create(), "a.jpg"))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"more than 1 seconds" in answer


def test_who_is_still_sending_hears_why_it_is_refused(server: Server) -> None:
    large = bytes(20_000_000)
    status, problem = server.call("PUT", f"/batches/{'0' * 8}-0000-7000-8000-{'0' * 12}/images?name=a.jpg", large)
    assert (status, problem["code"]) == (404, "no_batch")
    batch = server.create()
    status, problem = server.call("PUT", f"/batches/{batch}/images?name=..%2Fa.jpg", large)
    assert (status, problem["code"]) == (422, "bad_name")
    status, problem = server.call("POST", "/batches", large, kind="application/json")
    assert (status, problem["code"]) == (413, "request_entity_too_large")


def test_a_slow_reader_gets_all_of_a_large_answer(server: Server) -> None:
    fast = server.exchange(strangers.get(LARGE, "Connection: close"))
    assert len(fast) > 1_000_000
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", server.port))
    with contextlib.closing(client):
        client.sendall(strangers.get(LARGE, "Connection: close"))
        time.sleep(1.0)  # the thread is done, and the rest waits for this reader
        assert server.live_seconds() < PATIENCE_SECONDS
        slow = webserver.read_all(client)
    body = slow.partition(b"\r\n\r\n")[2]
    assert hashlib.sha256(body).digest() == hashlib.sha256(fast.partition(b"\r\n\r\n")[2]).digest()


def test_who_takes_nothing_of_an_answer_is_disconnected(server: Server) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(strangers.get(LARGE) * 20)  # more than the kernel's buffers hold
    time.sleep(6)
    with contextlib.closing(client), contextlib.suppress(ConnectionResetError):
        total = len(webserver.read_all(client))
        assert total < 20 * 1_000_000


def test_beyond_the_most_connections_those_that_wait_longest_are_closed(
    tmp_path: Path, migrated_sqlite_url: str
) -> None:
    with webserver.serve(tmp_path, migrated_sqlite_url, web_connections=20) as server:
        idle = [server.connect() for _ in range(10)]
        half = [server.connect(b"GET / HT") for _ in range(30)]
        assert server.live_seconds() < PATIENCE_SECONDS
        assert webserver.read_all(idle[0]) == b"" and webserver.read_all(half[0]) == b""
        half[-1].sendall(LAST[8:])
        assert webserver.read_all(half[-1]).startswith(b"HTTP/1.1 ")
        for client in idle + half:
            client.close()


def test_a_web_that_stops_does_not_wait_for_strangers(tmp_path: Path, migrated_sqlite_url: str) -> None:
    with (
        webserver.serve(tmp_path, migrated_sqlite_url) as server,
        strangers.hold(server.port, 500, b"GET / HT", seconds=60),
    ):
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - began < 10


def test_requests_that_do_not_arrive_in_time_are_answered(impatient: Server) -> None:
    for begun in (b"GET / HT", strangers.post("/sign-in", 100, FORM) + b"token=", LIVE[:-2] + b"X: "):
        answer = impatient.exchange(begun)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert problem["code"] == "request_timeout" and problem["status"] == 408
    assert impatient.exchange(b"") == b""
    assert impatient.exchange(LIVE).count(b"HTTP/1.1 200 ") == 1  # the connection is closed when it stays idle


def test_what_requests_hold_in_memory_is_limited(impatient: Server) -> None:
    begun = strangers.post("/sign-in", 90_000, FORM) + bytes(80_000)
    clients = [impatient.connect(begun) for _ in range(60)]
    answers = [webserver.read_all(client) for client in clients]
    assert answers[0].startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answers[0]
    assert answers[-1].startswith(b"HTTP/1.1 408 "), answers[-1]


# The protocol


def test_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    create = strangers.post("/api/v1/batches", 13, "application/json", server.authorization) + b'{"name": "b"}'
    assert server.statuses(LIVE + create + LIVE + strangers.get("/nothing") + LAST) == [200, 201, 200, 404, 200]


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    sent = strangers.post("/api/v1/batches", 13, "application/json", server.authorization) + b'{"name": "b"}' + LAST
    with contextlib.closing(server.connect()) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            client.sendall(sent[at : at + 1])
        answer = webserver.read_all(client)
    assert answer.count(b"HTTP/1.1 201 ") == 1 and answer.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize(
    "body",
    [
        b'd\r\n{"name": "b"}\r\n0\r\n\r\n',
        b'6;x=1\r\n{"name\r\n7\r\n": "b"}\r\n0\r\nX-Trailer: a\r\n\r\n',
        b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"name": "b"}') + b"000\r\n\r\n",
    ],
)
def test_bodies_may_come_in_chunks(server: Server, body: bytes) -> None:
    head = f"POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n{server.authorization}\r\n"
    sent = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body
    assert server.statuses(sent + LAST) == [201, 200]
    for at in (len(sent) - len(body) - 1, len(sent) - 3, len(sent) - 1):
        with contextlib.closing(server.connect(sent[:at])) as client:
            time.sleep(0.05)
            client.sendall(sent[at:] + LAST)
            assert b"HTTP/1.1 201 " in webserver.read_all(client)


def test_an_upload_may_come_in_chunks(server: Server) -> None:
    image = samples.jpeg()
    path = f"/api/v1/batches/{server.create()}/images?name=a.jpg"
    head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\n{server.authorization}\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (100, image[:100], len(image) - 100, image[100:])
    assert server.statuses(head.encode() + body + LAST) == [202, 200]
    assert server.statuses(head.encode() + b"5\r\nab") == [408]
    assert server.statuses(head.encode() + b"zz\r\nab" + LIVE) == [400]


AMBIGUOUS = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6",
    "equal lengths": b"Content-Length: 5\r\nContent-Length: 5",
    "a list of lengths": b"Content-Length: 5, 5",
    "a sign": b"Content-Length: +5",
    "a negative length": b"Content-Length: -5",
    "hexadecimal": b"Content-Length: 0x5",
    "a blank before the colon": b"Content-Length : 5",
    "chunked twice": b"Transfer-Encoding: chunked, chunked",
    "chunked not last": b"Transfer-Encoding: chunked, gzip",
    "a folded line": b"X: a\r\n b: c",
    "a bare line feed": b"X: a\nContent-Length: 5",
    "a null byte": b"X: a\0b",
    "two hosts": b"Host: evil.example",
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_requests_whose_end_is_doubtful_are_refused(server: Server, kind: str) -> None:
    sent = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\n" + AMBIGUOUS[kind] + b"\r\n\r\n"
    assert server.statuses(sent + b"0\r\n\r\n" + LIVE) == [400]


def test_chunks_that_are_malformed_are_refused(server: Server) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (b"-1\r\nabc", b"0x2\r\nab\r\n0\r\n\r\n", b"1_0\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"\r\n", b"z" * 2_000):
        assert server.statuses(head + body + LIVE) == [400], body


def test_heads_are_limited(server: Server) -> None:
    line = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    assert server.statuses(line + b"X: " + b"a" * 20_000 + b"\r\n\r\n") == [431]
    assert server.statuses(line + b"X: " + b"a" * 8_200 + b"\r\n\r\n") == [431]
    assert server.statuses(line + b"X: a\r\n" * 200 + b"\r\n") == [431]
    assert server.statuses(line + b"X: a\r\n" * 4_000) == [431]
    assert server.statuses(b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") == [414]


def test_old_clients_are_served(server: Server) -> None:
    assert server.statuses(b"GET /health/live HTTP/1.0\r\n\r\n" + LIVE) == [200]
    kept = b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert server.statuses(kept + LAST) == [200, 200]
    assert server.statuses(b"\r\n" + LAST) == [200]
    assert server.statuses(b"nonsense\r\n\r\n") == [400]


def test_who_asks_first_is_told_to_go_on(server: Server) -> None:
    head = strangers.post("/api/v1/batches", 13, "application/json", server.authorization, "Expect: 100-continue")
    with contextlib.closing(server.connect(head)) as client:
        assert client.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"name": "b"}' + LAST)
        assert webserver.read_all(client).count(b"HTTP/1.1 201 ") == 1
    image, batch = samples.jpeg(), server.create()
    path = f"/api/v1/batches/{batch}/images?name=a.jpg"
    with contextlib.closing(
        server.connect(strangers.put(path, len(image), server.authorization, "Expect: 100-continue"))
    ) as client:
        assert client.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(image + LAST)
        assert webserver.read_all(client).count(b"HTTP/1.1 202 ") == 1
    assert server.statuses(strangers.put(path, 5, "Expect: something")) == [417]


def test_who_asks_first_and_is_refused_sends_nothing(server: Server) -> None:
    asks = "Expect: 100-continue"
    unknown = f"/api/v1/batches/{'0' * 8}-0000-7000-8000-{'0' * 12}/images?name=a.jpg"
    assert server.statuses(strangers.put(unknown, 1_000, asks)) == [401]
    assert server.statuses(strangers.put(unknown, 1_000, asks, server.authorization)) == [404]
    assert server.statuses(
        strangers.post("/api/v1/batches", 2_000_000, "application/json", asks, server.authorization)
    ) == [413]


def test_the_body_of_a_refused_request_is_not_read_as_a_request(server: Server) -> None:
    for path in ("/api/v1/nothing", "/api/v1/batches/x/images?name=a"):
        answer = server.exchange(strangers.put(path, len(LAST), server.authorization) + LAST)
        assert answer.count(b"HTTP/1.1 ") == 1 and b"Connection: close\r\n" in answer
    assert server.statuses(strangers.post("/sign-out", len(LAST), FORM) + LAST + LAST) == [400, 200]
    large = strangers.post("/sign-in", 2_000_000, FORM) + LAST * 10
    assert server.statuses(large)[1:] == []


def test_headers_do_not_say_where_a_request_comes_from(server: Server) -> None:
    forged = ("SCRIPT_NAME: /evil", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", "PATH_INFO: /")
    page = server.exchange(strangers.get("/guide", "Connection: close", *forged))
    assert b"evil" not in page and b"https://localhost" not in page
    assert server.statuses(strangers.get("/health/live", "SCRIPT_NAME: /health", "Connection: close")) == [200]
