"""What a client has not taken of an answer waits in memory or in a file, and arrives in order."""

import contextlib
import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from web.server.outgoing import Outgoing, Spools


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield ours, theirs


def read(client: socket.socket, count: int) -> bytes:
    found = bytearray()
    client.setblocking(False)
    while len(found) < count:
        try:
            found += client.recv(min(10_000, count - len(found)))
        except BlockingIOError:
            break
    return bytes(found)


def test_all_arrives_in_order_whenever_the_client_reads(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = ends
    spools = Spools(tmp_path)
    outgoing = Outgoing(ours, spools)
    chance = random.Random(7)
    sent, received = hashlib.sha256(), bytearray()
    total = 0
    for _ in range(200):
        piece = chance.randbytes(chance.choice([1, 100, 5_000, 100_000]))
        outgoing.write(piece)
        sent.update(piece)
        total += len(piece)
        if chance.random() < 0.3:
            received += read(theirs, chance.choice([10, 50_000, 500_000]))
    assert outgoing.pending == spools.bytes > 0
    while not outgoing.flush():
        received += read(theirs, 1_000_000)
    received += read(theirs, total)
    assert hashlib.sha256(received).digest() == sent.digest() and outgoing.sent == total
    assert outgoing.pending == spools.bytes == 0 and list(tmp_path.iterdir()) == []


def test_what_is_forgotten_no_longer_counts(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    outgoing = Outgoing(ends[0], spools)
    outgoing.write(bytes(5_000_000))
    assert spools.bytes > 0
    outgoing.clear()
    assert spools.bytes == 0 and outgoing.flush()


def test_a_file_is_sent_from_its_offset(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    outgoing = Outgoing(ends[0], Spools(tmp_path))
    with path.open("rb") as file:
        outgoing.write_file(file, 3, 4)
    assert read(ends[1], 10) == b"3456"


def test_a_client_that_is_gone_is_an_error(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    outgoing = Outgoing(ends[0], Spools(tmp_path))
    ends[1].close()
    with pytest.raises(OSError):
        outgoing.write(b"a")
