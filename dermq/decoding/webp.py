"""WebP (RFC 9649): the chunks are checked here, and only those that hold pixels are decoded."""

import struct
from collections.abc import Iterator

from dermq import formats
from dermq.decoding import exif, pillow
from dermq.decoding.raster import Limits, Raster, check_zeros, make_damaged, make_several_frames, note_extra_bytes
from dermq.notes import Note

_CHUNKS_AT = 12
_PIXELS = (b"VP8 ", b"VP8L")
_ALPHA = b"ALPH"
_ALPHA_FLAG = 0x10
_ZERO_BYTES = 256
_PIXELS_PER_ZERO_BYTE = 5_000
"""A picture of one colour has a zero byte for about every 10,000 pixels, so a longer run was not written by a coder."""


def read(data: bytes, limits: Limits) -> Raster:
    """Decode a WebP of one frame. Raises Permanent when its pixels are not all there."""
    size = formats.webp.FORMAT.size(data)
    if size is None:
        raise make_damaged("it ends in the middle of its header")
    formats.check_pixels(*size, limits.max_pixels)
    end = _CHUNKS_AT - 4 + int.from_bytes(data[4:8], "little")
    chunks = list(_split(data, end))
    frames = sum(kind == b"ANMF" for kind, _, _ in chunks)
    if frames > 1:
        raise make_several_frames(frames)
    kept = {kind: body for kind, body, _ in reversed(chunks)}
    for kind, body, whole in chunks:
        if kind in (*_PIXELS, _ALPHA, b"ANMF"):
            if not whole:
                raise make_damaged("it ends before its last pixels")
            check_zeros(body, max(_ZERO_BYTES, size[0] * size[1] // _PIXELS_PER_ZERO_BYTE))
    plain = data if frames else _write_plain(size, kept)
    if formats.webp.FORMAT.size(plain) != size:
        raise make_damaged("its pixels have another size than it announces")
    image = pillow.load(plain, "WEBP")
    orientation = exif.find_orientation(kept.get(b"EXIF"), kept.get(b"XMP "))
    return Raster(image, size, orientation, kept.get(b"ICCP"), notes=_find_notes(data, end))


def _split(data: bytes, end: int) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the chunks: name, content, and whether it is whole."""
    at, stop = _CHUNKS_AT, min(end, len(data))
    while at + 8 <= stop:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield kind, data[at + 8 : at + 8 + length], at + 8 + length <= stop
        at += 8 + length + length % 2


def _write_plain(size: formats.Size, chunks: dict[bytes, bytes]) -> bytes:
    """Return the WebP with nothing but what its pixels need, so that its metadata decides nothing."""
    pixels = next((kind for kind in _PIXELS if kind in chunks), None)
    if pixels is None:
        raise make_damaged("it ends before its pixels begin")
    parts = [(pixels, chunks[pixels])]
    if _ALPHA in chunks and pixels == b"VP8 ":
        sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size)
        parts = [(b"VP8X", struct.pack("<I", _ALPHA_FLAG) + sides), (_ALPHA, chunks[_ALPHA]), *parts]
    body = b"".join(kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _find_notes(data: bytes, end: int) -> tuple[Note, ...]:
    return (note_extra_bytes(len(data) - end),) if end < len(data) else ()
