"""Receive request bodies in pieces, so that none is whole in memory; limit their number, length and time."""

import contextlib
import hashlib
import time
from collections.abc import Iterator

from flask import request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import get_input_stream

from dermq import errors
from web import services

CHUNK_BYTES = 64 * 1024
DISCARD_SECONDS = 5.0


@contextlib.contextmanager
def take_place() -> Iterator[None]:
    """Take one of the places for uploads during the block, so that other threads stay free for other requests.

    Raises Unavailable when all places are taken.
    """
    here = services.get_current()
    places = here.receiving
    if not places.acquire(blocking=False):
        raise errors.Unavailable(
            "busy_receiving", "The server is receiving as many uploads as it can at one time; try again shortly."
        )
    try:
        with _limit_silence(here.settings.upload_silent_seconds):
            yield
    finally:
        places.release()


def check_length(most: int, error: errors.TooLarge) -> None:
    """Raise ``error`` when Content-Length says that the body has more than ``most`` bytes."""
    if request.content_length is not None and request.content_length > most:
        raise error


def discard_rest() -> None:
    """Read and drop the rest of a body of moderate length, for a few seconds at most.

    Otherwise a client that is still sending finds its connection closed and cannot read the answer.
    """
    length = request.content_length
    if length is None or length > services.get_current().settings.max_image_bytes:
        return
    until = time.monotonic() + DISCARD_SECONDS
    with _limit_silence(DISCARD_SECONDS), contextlib.suppress(ClientDisconnected):
        for _ in read_chunks():
            if time.monotonic() > until:
                return


@contextlib.contextmanager
def _limit_silence(seconds: float) -> Iterator[None]:
    """Wait at most ``seconds`` for each piece of a body; without this, gunicorn's threads wait for ever."""
    socket = request.environ.get("gunicorn.socket")
    if socket is None:
        yield
        return
    before = socket.gettimeout()
    socket.settimeout(seconds)
    try:
        yield
    finally:
        socket.settimeout(before)


class Noted:
    """Yields the chunks of a body and remembers which they were."""

    def __init__(self, body: Iterator[bytes]) -> None:
        self._body = body
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            self._hash.update(chunk)
            yield chunk

    @property
    def identity(self) -> str:
        """Return a text that differs for bodies that differ in length or in what was read of them."""
        return f"{request.content_length} {self._hash.hexdigest()}"


def read_chunks() -> Iterator[bytes]:
    """Yield the request's body in pieces. Raises ClientDisconnected when it ends before its Content-Length."""
    stream = get_input_stream(request.environ)  # not request.stream, which has the limit for forms
    received = 0
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except (OSError, ParseException) as err:  # gunicorn raises these when a chunked body breaks off
            raise ClientDisconnected from err
        if not chunk:
            break
        received += len(chunk)
        yield chunk
    # gunicorn ends the stream without an error when the client goes away.
    if request.content_length is not None and received < request.content_length:
        raise ClientDisconnected
