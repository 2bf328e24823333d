"""multipart/form-data (RFC 7578) a part at a time, so that a thousand images never are in memory together.

What is wrong with the body as a whole is an HTTP exception and none of ours, so that nobody takes it for the refusal
of the file that was being read.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.http import parse_options_header

from dermq import errors

FIELD_BYTES = 100_000
"""Most bytes of one field that is not a file."""
HEADER_BYTES = 8_000
"""Most bytes of one header of a part: a file's name in UTF-8, percent-encoded, has room."""
_ALL_PARSED = object()


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
    """Yield the parts of a body in their order.

    Raises BadRequest when the body is malformed, RequestEntityTooLarge when a part's headers are too long.
    """
    events = _events(chunks, boundary)
    for segment in events:
        if not isinstance(segment, MultipartSegment):
            continue
        _, options = parse_options_header(segment.header("Content-Disposition"))
        if (filename := options.get("filename")) is None:
            yield FormField(options.get("name", ""), _text(_content(events), options.get("name")))
        else:
            content = _content(events)
            yield FormFile(filename, content)
            for _ in content:  # what the caller did not want to read
                pass


def _events(chunks: Iterable[bytes], boundary: str) -> Iterator[MultipartSegment | bytes | None]:
    """Yield for every part its head, the pieces of its content, and None at its end."""
    with _translated():
        parser = PushMultipartParser(boundary, max_header_size=HEADER_BYTES)
    for chunk in itertools.chain(filter(None, chunks), [b""]):  # an empty one tells the parser that this is all
        parsed = parser.parse(chunk)
        while True:
            with _translated():
                event = next(parsed, _ALL_PARSED)
            if event is _ALL_PARSED:
                break
            yield event


def _content(events: Iterator[MultipartSegment | bytes | None]) -> Iterator[bytes]:
    for event in events:
        if not isinstance(event, bytes):
            return
        yield event


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
    except ParserLimitReached as err:
        raise RequestEntityTooLarge(f"The headers of a part are too long: {err}.") from err
    except ValueError as err:
        raise BadRequest(f"The body is not well-formed multipart/form-data: {err}.") from err
