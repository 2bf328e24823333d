"""PNG (ISO/IEC 15948): the chunks are checked here, and only those that hold pixels are decoded.

So text, profiles and other metadata may be large or damaged without any effect on the pixels.
"""

import contextlib
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import formats
from dermq.decoding import exif, pillow
from dermq.decoding.raster import (
    Limits,
    Raster,
    make_damaged,
    make_several_frames,
    make_unsupported_pixels,
    note_extra_bytes,
    reduce_to_8_bits,
    tell_damage,
)
from dermq.notes import Note

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_PROFILE_BYTES = 16_000_000
_GREY, _RGB, _PALETTE = 0, 2, 3
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}


@dataclass
class _Chunks:
    """The chunks of a PNG; the first of each kind, but all of the pixels."""

    single: dict[bytes, bytes] = field(default_factory=dict)
    pixels: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    end: int | None = None

    def read_header(self) -> tuple[int, int, int, int]:
        """Return width, height, bit depth and colour type."""
        width, height, depth, colours = struct.unpack_from(">IIBB", self.single[b"IHDR"])
        return width, height, depth, colours


def read(data: bytes, limits: Limits) -> Raster:
    """Decode a PNG. Raises Permanent when a chunk that pixels need is damaged or missing."""
    chunks = _split(data)
    width, height, depth, _ = chunks.read_header()
    formats.check_pixels(width, height, limits.max_pixels)
    frames = int.from_bytes(chunks.single.get(b"acTL", b"")[:4], "big")
    if frames > 1:
        raise make_several_frames(frames)
    image = _decode_16_bits(chunks) if depth == 16 else _decode(chunks)
    notes: tuple[Note, ...] = ()
    if chunks.end is not None and chunks.end < len(data):
        notes = (note_extra_bytes(len(data) - chunks.end),)
    return Raster(
        image,
        (width, height),
        exif.find_orientation(*_find_metadata(chunks)),
        _find_profile(chunks),
        _find_gamma(chunks),
        notes,
    )


def _split(data: bytes) -> _Chunks:
    """Split a PNG into chunks. Critical ones, with a capital first letter, must be whole."""
    found, at = _Chunks(), len(_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body, stop = data[at + 8 : at + 8 + length], at + 12 + length
        critical = not kind[0] & 0x20
        whole = stop <= len(data) and zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[stop - 4 : stop], "big")
        if critical and not whole and kind != b"IEND":
            raise make_damaged(f"its chunk {kind.decode('ascii', 'backslashreplace')} is incomplete or was changed")
        if kind == b"IDAT":
            found.pixels.append(body)
        elif whole and kind in (b"zTXt", b"iTXt"):
            found.texts.append(body)
        elif whole:
            found.single.setdefault(kind, body)
        if kind == b"IEND":
            found.end = stop
            break
        at = stop
    if len(found.single.get(b"IHDR", b"")) != 13 or not found.pixels:
        raise make_damaged("it ends before its pixels begin")
    return found


def _write_plain(chunks: _Chunks, *kept: bytes) -> bytes:
    """Return the PNG with nothing but what its pixels need."""
    parts = [(kind, chunks.single[kind]) for kind in (b"IHDR", b"PLTE", *kept) if kind in chunks.single]
    parts += [(b"IDAT", b"".join(chunks.pixels)), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return _SIGNATURE + b"".join(written)


def _decode(chunks: _Chunks) -> Image.Image:
    return pillow.load(_write_plain(chunks, b"tRNS"), "PNG")


def _decode_16_bits(chunks: _Chunks) -> Image.Image:
    """Decode 16 bits a channel. Fewer bits that ``sBIT`` declares are scaled up if the file did not do so."""
    import imagecodecs  # only for these rare files

    *_, colours = chunks.read_header()
    with tell_damage():
        samples = imagecodecs.png_decode(_write_plain(chunks))
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[2] != _CHANNELS[colours]:
        raise make_unsupported_pixels("This PNG")
    clear = _find_clear(samples, chunks)
    bits = _count_significant_bits(samples, chunks, colours)
    if colours in (4, 6):
        alpha = reduce_to_8_bits(samples[..., -1:], 16)
        pixels = np.concatenate([reduce_to_8_bits(samples[..., :-1], bits), alpha], axis=2)
    else:
        pixels = reduce_to_8_bits(samples, bits)
        if clear is not None:
            pixels = np.concatenate([pixels, np.where(clear, 0, 255).astype(np.uint8)[..., None]], axis=2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def _find_clear(samples: NDArray[np.uint16], chunks: _Chunks) -> NDArray[np.bool_] | None:
    """Return which pixels have the one colour that ``tRNS`` makes transparent."""
    key = chunks.single.get(b"tRNS", b"")
    if not key or len(key) != 2 * samples.shape[2]:
        return None
    clear: NDArray[np.bool_] = (samples == np.frombuffer(key, ">u2").astype(np.uint16)).all(axis=2)
    return clear


def _count_significant_bits(samples: NDArray[np.uint16], chunks: _Chunks, colours: int) -> int:
    """Return how many bits of 16 hold values. A PNG should scale them to 16 (clause 12.4), but some programs do not."""
    declared = chunks.single.get(b"sBIT", b"")[: 3 if colours in (_RGB, 6) else 1]
    bits = max(declared, default=16)
    values = samples[..., :-1] if colours in (4, 6) else samples
    return bits if 8 <= bits < 16 and values.max(initial=0) < 1 << bits else 16


def _find_metadata(chunks: _Chunks) -> tuple[bytes | None, bytes | None]:
    """Return EXIF and XMP. ImageMagick writes EXIF as the text of a chunk, in hexadecimal digits."""
    exif_block = chunks.single.get(b"eXIf")
    for text in chunks.texts if exif_block is None else ():
        keyword, _, packed = text.partition(b"\0")
        if keyword == b"Raw profile type exif":
            with contextlib.suppress(zlib.error, ValueError, IndexError):
                lines = zlib.decompressobj().decompress(packed[1:], _MOST_PROFILE_BYTES).split(b"\n", 3)
                exif_block = bytes.fromhex(lines[3].decode("ascii"))
    xmp = next((text for text in chunks.texts if text.startswith(b"XML:com.adobe.xmp\0")), None)
    return exif_block, xmp


def _find_profile(chunks: _Chunks) -> bytes | None:
    """Return the ICC profile; None when it is missing, damaged, or larger than profiles are."""
    _, _, packed = chunks.single.get(b"iCCP", b"").partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _MOST_PROFILE_BYTES) or None
    except zlib.error:
        return None


def _find_gamma(chunks: _Chunks) -> float | None:
    """Return the gamma of ``gAMA``, which counts only without ``sRGB`` and ``iCCP`` (clause 12.1)."""
    if b"sRGB" in chunks.single or b"iCCP" in chunks.single or len(chunks.single.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(chunks.single[b"gAMA"], "big") / 100_000
    return gamma if 0.05 < gamma < 5 else None
