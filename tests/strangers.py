"""Clients that hold connections to the web open and send or read as little as they can."""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

_FILES = 8_192


@contextlib.contextmanager
def hold(port: int, count: int, begin: bytes = b"", drip: bytes = b"", *, seconds: float = 1.0) -> Iterator[None]:
    """Hold ``count`` connections open during the block, and open those again that the web closes.

    Each sends ``begin`` when it is open, and then a byte of ``drip`` every ``seconds``.
    """
    _allow_files()
    held = [_open(port, begin) for _ in range(count)]
    over = threading.Event()

    def go_on() -> None:
        rounds = 0
        while not over.wait(seconds):
            byte = drip[rounds % len(drip) :][:1] if drip else b""
            rounds += 1
            for number, client in enumerate(held):
                if not _is_open(client, byte):
                    client.close()
                    held[number] = _open(port, begin)

    dripping = threading.Thread(target=go_on, daemon=True)
    dripping.start()
    try:
        yield
    finally:
        over.set()
        dripping.join()
        for client in held:
            client.close()


def post(path: str, length: int, kind: str, *headers: str) -> bytes:
    """Return the head of a POST whose body is still to come."""
    return _head(f"POST {path}", f"Content-Type: {kind}", f"Content-Length: {length}", *headers)


def put(path: str, length: int, *headers: str) -> bytes:
    """Return the head of a PUT whose body is still to come."""
    return _head(f"PUT {path}", f"Content-Length: {length}", *headers)


def get(path: str, *headers: str) -> bytes:
    """Return a whole GET."""
    return _head(f"GET {path}", *headers)


def _head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def _open(port: int, begin: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # who does not read must not hide in a large buffer
    client.settimeout(20)
    with contextlib.suppress(OSError):
        client.connect(("127.0.0.1", port))
        client.sendall(begin)
    client.setblocking(False)
    return client


def _is_open(client: socket.socket, byte: bytes) -> bool:
    """Send a byte and return whether the web has not closed the connection."""
    try:
        client.send(byte)
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_FILES, hard) if hard != resource.RLIM_INFINITY else _FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def wait_for(condition: object, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)
