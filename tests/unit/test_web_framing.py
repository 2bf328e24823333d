"""The end of a chunked body is found where gunicorn's parser finds it, wherever the pieces are cut."""

import contextlib
import itertools
from typing import Any

import pytest
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from web.server.framing import Chunked, Length

CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=6)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b' ; a="b c"'])
WORDS = st.sampled_from([b"0", b"1", b"a", b";", b" ", b"\r\n", b"\n", b"\r"])
TRAILERS = st.sampled_from([b"", b"X: a\r\n", b"X: a\r\nY: b\r\n"])


class _Request:
    limit_request_field_size = 0
    max_buffer_headers = 0

    def parse_headers(self, data: bytes, from_trailer: bool) -> list[Any]:
        return []


def feed(body: bytes, cuts: list[int]) -> int | None:
    """Return how many bytes were fed when the body was done, or None."""
    framing = Chunked()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in itertools.pairwise(places):
        framing.feed(body[start:end])
        if framing.complete:
            return end
    return None


def write(chunks: list[bytes], extension: bytes, trailers: bytes) -> bytes:
    written = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return written + b"0\r\n" + trailers + b"\r\n"


@given(CHUNKS, EXTENSIONS, TRAILERS, st.lists(st.integers(0, 2_000), max_size=8), st.binary(max_size=20))
def test_a_body_is_done_with_its_last_byte(
    chunks: list[bytes], extension: bytes, trailers: bytes, cuts: list[int], after: bytes
) -> None:
    body = write(chunks, extension, trailers)
    assert feed(body, cuts) == len(body)
    every = list(range(len(body)))
    assert feed(body[:-1], every) is None
    done = feed(body + after, [*cuts, len(body)])
    assert done == len(body)


@given(
    st.lists(WORDS).map(b"".join),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_what_the_parser_takes_as_whole_is_done(body: bytes, cuts: list[int]) -> None:
    unreader = IterUnreader([body])
    with contextlib.suppress(ParseException, OSError):
        Body(ChunkedReader(_Request(), unreader)).read()
        assert feed(body, cuts) is not None


@pytest.mark.parametrize("body", [b"x\r\n", b"-5\r\n", b"\r\n", b"1" * 2_000, b"0\r\n" + b"X: aaaaaaa\r\n" * 2_000])
def test_a_malformed_body_is_done_at_once(body: bytes) -> None:
    assert feed(body, list(range(len(body)))) is not None


@given(st.integers(0, 100), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_a_body_of_known_length_is_done_with_its_length(length: int, pieces: list[int]) -> None:
    framing, received = Length(length), 0
    for piece in pieces:
        assert framing.complete == (received >= length)
        framing.feed(bytes(piece))
        received += piece
    assert framing.complete == (received >= length)
