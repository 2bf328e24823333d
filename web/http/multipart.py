"""multipart/form-data (RFC 7578) a part at a time, so that a thousand images never are in memory together.

What is wrong with the body as a whole is an HTTP exception and none of ours, so that nobody takes it for the refusal
of the file that was being read.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from werkzeug.exceptions import BadRequest
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from dermq import errors

FIELD_BYTES = 100_000
"""Most bytes of one field that is not a file."""
_PADDING_BYTES = 100
"""Blanks that may stand between a delimiter and the end of its line (RFC 2046)."""
_BUFFER_BYTES = 1_000_000
"""Most bytes held while looking for a part's headers or the next boundary."""


@dataclass(frozen=True)
class FormField:
    name: str
    value: str


@dataclass(frozen=True)
class FormFile:
    """A file; its content can be read once, before the next part is asked for."""

    filename: str
    """As the client sent it: data, never a path of ours."""
    content: Iterator[bytes]


def parts(chunks: Iterable[bytes], boundary: str) -> Iterator[FormField | FormFile]:
    """The parts of a body in their order. Raises BadRequest when it is malformed."""
    decoder = MultipartDecoder(boundary.encode(), max_form_memory_size=_BUFFER_BYTES)
    events = _events(decoder, _uncut(chunks, b"--" + boundary.encode()))
    for event in events:
        if isinstance(event, Field):
            yield FormField(event.name or "", _text(_content(events), event.name))
        elif isinstance(event, File):
            content = _content(events)
            yield FormFile(event.filename, content)
            for _ in content:  # what the caller did not want to read
                pass


def _uncut(chunks: Iterable[bytes], delimiter: bytes) -> Iterator[bytes]:
    """The same bytes, in pieces that never end within a line that is, or may become, a delimiter.

    Werkzeug 3.1.9 gives a file whose closing delimiter is cut short of its end a carriage return that is not the
    file's.
    """
    held = b""
    for chunk in chunks:
        piece = held + chunk
        start = piece.rfind(b"\n") + 1
        line = piece[start:]
        is_delimiter = line.startswith(delimiter) and len(line) < len(delimiter) + _PADDING_BYTES
        if is_delimiter or delimiter.startswith(line):
            end = max(0, start - len(b"\r\n"))
        else:
            end = len(piece) - piece.endswith(b"\r")
        held = piece[end:]
        if end:
            yield piece[:end]
    if held:
        yield held


def _events(decoder: MultipartDecoder, chunks: Iterable[bytes]) -> Iterator[Event]:
    for chunk in itertools.chain(chunks, [None]):
        with _translated():
            decoder.receive_data(chunk)
        while True:
            with _translated():
                event = decoder.next_event()
            if isinstance(event, NeedData | Epilogue):
                break
            yield event


def _content(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        if isinstance(event, Data):
            if event.data:
                yield event.data
            if not event.more_data:
                return


def _text(content: Iterator[bytes], name: str | None) -> str:
    value = bytearray()
    for chunk in content:
        value += chunk
        if len(value) > FIELD_BYTES:
            raise errors.TooLarge("field_too_large", f"The field {name!r} has more than {FIELD_BYTES:,} bytes.")
    with _translated():
        return value.decode()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ValueError as err:
        raise BadRequest(f"The body is not well-formed multipart/form-data: {err}.") from err
