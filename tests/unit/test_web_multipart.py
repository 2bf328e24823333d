"""multipart/form-data is read a part at a time, whatever the borders of the chunks are."""

import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from dermq import errors
from tests import api
from web.http import multipart

FILES = [("a/é 🔬.jpg", b"\xff\xd8" + b"\r\n--dermq-test" * 9), ("empty", b""), ('q"uote', b"\r\n"), ("%2e%2e", b"--")]
WHOLE = api.multipart(FILES, {"name": "batch ü", "seal": "true"})


def read(chunks: Iterator[bytes]) -> list[tuple[str, bytes]]:
    found = []
    for part in multipart.read_parts(chunks, api.BOUNDARY):
        if isinstance(part, multipart.FormField):
            found.append((part.name, part.value.encode()))
        else:
            found.append((part.filename, b"".join(part.content)))
    return found


def test_every_single_cut_gives_the_same_files() -> None:
    """Werkzeug's parser adds a carriage return when a chunk ends within the closing delimiter."""
    assert [cut for cut in range(len(WHOLE)) if read(iter([WHOLE[:cut], WHOLE[cut:]]))[2:] != FILES] == []


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(WHOLE)]
    chunks = iter([WHOLE[start:end] for start, end in itertools.pairwise(at)])
    assert read(chunks) == [("name", "batch ü".encode()), ("seal", b"true"), *FILES]


def test_a_file_that_is_not_read_is_skipped() -> None:
    parts = multipart.read_parts(iter([WHOLE]), api.BOUNDARY)
    assert [part.filename for part in parts if isinstance(part, multipart.FormFile)] == [name for name, _ in FILES]


@pytest.mark.parametrize("cut", range(3, 200, 7))
def test_a_body_that_ends_early_is_a_clear_error(cut: int) -> None:
    with pytest.raises(BadRequest):
        read(iter([WHOLE[:-cut]]))


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"--dermq-test-boundary\r\n\r\n\r\n--dermq-test-boundary--\r\n",
     b"--dermq-test-boundary\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nx\r\n--dermq-test-boundary--\r\n"],
)  # fmt: skip
def test_a_body_that_is_not_a_form_is_reported(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(iter([body]))


def test_blanks_after_a_delimiter_are_reported_as_malformed() -> None:
    with pytest.raises(BadRequest):
        read(iter([WHOLE.replace(api.BOUNDARY.encode(), api.BOUNDARY.encode() + b" ")]))


def test_a_name_may_be_in_its_extended_form() -> None:
    """RFC 7578 forbids this field, but some clients send it."""
    plain = api.multipart([("x.jpg", b"x")], {})
    extended = plain.replace(b'filename="x.jpg"', b"filename*=UTF-8''%C3%A4.jpg")
    assert extended != plain
    assert read(iter([extended])) == [("ä.jpg", b"x")]


def test_a_field_has_a_limit() -> None:
    with pytest.raises(errors.TooLarge):
        read(iter([api.multipart([], {"name": "x" * (multipart.FIELD_BYTES + 1)})]))


def test_headers_have_a_limit() -> None:
    def endless() -> Iterator[bytes]:
        yield f"--{api.BOUNDARY}\r\n".encode()
        while True:
            yield b"X-Header: " + b"x" * 10_000

    with pytest.raises(RequestEntityTooLarge):
        read(endless())


def test_a_large_file_is_never_in_memory_whole() -> None:
    def body() -> Iterator[bytes]:
        yield f'--{api.BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'.encode()
        for _ in range(1000):
            yield bytes(64 * 1024)
        yield f"\r\n--{api.BOUNDARY}--\r\n".encode()

    tracemalloc.start()
    read_bytes = sum(
        len(chunk)
        for part in multipart.read_parts(body(), api.BOUNDARY)
        if isinstance(part, multipart.FormFile)
        for chunk in part.content
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read_bytes == 1000 * 64 * 1024
    assert peak < 5_000_000
