"""Read multipart/form-data (RFC 7578) part by part, so that a thousand images are never in memory together.

An error in the body as a whole is an HTTP exception and not a ``DermqError``. So no caller confuses it with the refusal
of the file that is being read.
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
HEADER_BYTES = 64_000
"""Most bytes of one header of a part. A name that is too long for a file is shorter, and refuses this file alone."""
_HEADER_ENCODING = "latin-1"
"""The parser decodes headers in this encoding, which has every byte, so that no name can spoil the request."""
_ALL_PARSED = object()


@dataclass(frozen=True)
class FormField:
    """A field that is not a file."""

    name: str
    value: str


@dataclass(frozen=True)
class FormFile:
    """A file. Its content can be read once, before the next part is requested."""

    filename: str
    """The name that the client sent. It is data, and never used as a path."""
    content: Iterator[bytes]


def read_parts(chunks: Iterable[bytes], boundary: str) -> Iterator[FormField | FormFile]:
    """Yield the parts of a body in their order.

    Raises BadRequest when the body is malformed, RequestEntityTooLarge when a part's headers are too long.
    """
    events = _read_events(chunks, boundary)
    for segment in events:
        if not isinstance(segment, MultipartSegment):
            continue
        _, options = parse_options_header(_decode_header(segment.header("Content-Disposition")))
        if (filename := options.get("filename")) is None:
            if not options.get("name", "").isprintable():
                raise BadRequest("The name of a field has characters that are not printable.")
            yield FormField(options.get("name", ""), _read_text(_read_content(events), options.get("name")))
        else:
            content = _read_content(events)
            yield FormFile(filename, content)
            for _ in content:  # drop what the caller did not read
                pass


def _read_events(chunks: Iterable[bytes], boundary: str) -> Iterator[MultipartSegment | bytes | None]:
    """Yield for each part its head, then the pieces of its content, then None."""
    with _translate_errors():
        parser = PushMultipartParser(boundary, max_header_size=HEADER_BYTES, header_charset=_HEADER_ENCODING)
    for chunk in itertools.chain(filter(None, chunks), [b""]):  # an empty chunk marks the end for the parser
        parsed = parser.parse(chunk)
        while True:
            with _translate_errors():
                event = next(parsed, _ALL_PARSED)
            if event is _ALL_PARSED:
                break
            yield event


def _decode_header(value: str | None) -> str:
    """Return a header as UTF-8. A byte that is not becomes a lone surrogate, which no name of a file may hold."""
    return (value or "").encode(_HEADER_ENCODING).decode("utf-8", "surrogateescape")


def _read_content(events: Iterator[MultipartSegment | bytes | None]) -> Iterator[bytes]:
    for event in events:
        if not isinstance(event, bytes):
            return
        yield event


def _read_text(content: Iterator[bytes], name: str | None) -> str:
    value = bytearray()
    for chunk in content:
        value += chunk
        if len(value) > FIELD_BYTES:
            raise errors.TooLarge("field_too_large", f"The field {name!r} has more than {FIELD_BYTES:,} bytes.")
    with _translate_errors():
        return value.decode()


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except ParserLimitReached as err:
        raise RequestEntityTooLarge(f"The headers of a part are too long: {err}.") from err
    except ValueError as err:
        raise BadRequest(f"The body is not well-formed multipart/form-data: {err}.") from err
