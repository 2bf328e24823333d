"""Bodies on their way in: how many at one time, how long, and a piece at a time, never whole in memory."""

import contextlib
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
def receiving() -> Iterator[None]:
    """Hold one of the places for receiving a body; the other threads stay free for everything else.

    Raises Unavailable when all are taken.
    """
    here = services.current()
    places = here.receiving
    if not places.acquire(blocking=False):
        raise errors.Unavailable(
            "busy_receiving", "As many uploads as the server takes at one time are under way; try again shortly."
        )
    try:
        with _patience(here.settings.upload_silent_seconds):
            yield
    finally:
        places.release()


def check_length(most: int, error: errors.TooLarge) -> None:
    """Raise ``error`` when the request says beforehand that its body is longer than ``most`` bytes."""
    if request.content_length is not None and request.content_length > most:
        raise error


def discard_rest() -> None:
    """Read and forget what is left of a body of moderate length, for a few seconds.

    A client that is still sending would otherwise find its connection broken and never read why.
    """
    length = request.content_length
    if length is None or length > services.current().settings.max_image_bytes:
        return
    until = time.monotonic() + DISCARD_SECONDS
    with _patience(DISCARD_SECONDS), contextlib.suppress(ClientDisconnected):
        for _ in chunks():
            if time.monotonic() > until:
                return


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Wait no longer than this for each piece of a body; gunicorn's threads would wait for ever."""
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


def chunks() -> Iterator[bytes]:
    """The request's body. Raises ClientDisconnected when it ends before its announced length."""
    stream = get_input_stream(request.environ)  # request.stream keeps to the limit for forms
    received = 0
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except (OSError, ParseException) as err:  # what gunicorn raises when a chunked body breaks off
            raise ClientDisconnected from err
        if not chunk:
            break
        received += len(chunk)
        yield chunk
    # gunicorn ends the stream without an error when the client goes away.
    if request.content_length is not None and received < request.content_length:
        raise ClientDisconnected
