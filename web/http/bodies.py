"""Receive the bodies of uploads in pieces, so that none is whole in memory; limit their number and their length.

``web.server`` reads all other bodies before a view is called, and limits the time that a client takes for either.
"""

import contextlib
import hashlib
from collections.abc import Iterator

from flask import request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestTimeout
from werkzeug.wsgi import get_input_stream

from dermq import errors
from web import services
from web.http import paths

CHUNK_BYTES = 64 * 1024
FORM_BYTES = 1_000_000
"""Most bytes of a form or a JSON body. Uploads are streamed and have their own limits."""
PAGE_FORM_BYTES = 16_384
"""Most bytes of a form of a page, which anybody may send: a token and an address. Reading a form of 1 MB that has only
field names takes 100 MB."""


def is_streamed(method: str, path: str, content_type: str) -> bool:
    """Return whether a view reads the body of such a request in pieces; all other bodies are read before."""
    is_upload = method == "PUT" or content_type.lower().startswith("multipart/")
    return is_upload and path.startswith(f"{paths.API}/")


@contextlib.contextmanager
def take_place(lab_id: int) -> Iterator[None]:
    """Take one of the places for uploads during the block, so that other threads stay free for other requests.

    Raises Unavailable when this lab can have no place now, or must give it to another lab.
    """
    places = services.get_current().places
    channel = request.environ.get("gunicorn.socket")
    place = places.take(lab_id, end=getattr(channel, "end_upload", _cannot_end))
    try:
        yield
    except ClientDisconnected as err:
        if place.is_given_up:
            raise errors.Unavailable(
                "place_given_up", "Another lab needs the place of this upload; send it again."
            ) from err
        raise
    finally:
        places.leave(place)


def _cannot_end() -> None:
    """Do nothing: used where the server cannot end an upload, as in tests."""


def check_length(most: int, error: errors.TooLarge) -> None:
    """Raise ``error`` when Content-Length says that the body has more than ``most`` bytes."""
    if request.content_length is not None and request.content_length > most:
        raise error


class Noted:
    """Yields the chunks of a body and computes an identity of what was read."""

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
    """Yield the request's body in pieces.

    Raises ClientDisconnected when it ends before its Content-Length, and RequestTimeout when it is too slow.
    """
    stream = get_input_stream(request.environ)  # not request.stream, which has the limit for forms
    received = 0
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except TimeoutError as err:
            raise RequestTimeout(str(err)) from err
        except (OSError, ParseException) as err:  # gunicorn raises these when a chunked body breaks off
            raise ClientDisconnected from err
        if not chunk:
            break
        received += len(chunk)
        yield chunk
    # gunicorn ends the stream without an error when the client goes away.
    if request.content_length is not None and received < request.content_length:
        raise ClientDisconnected
