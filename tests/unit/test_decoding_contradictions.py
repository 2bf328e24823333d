"""A file whose parts contradict each other, or lead nowhere, is refused quickly, and with the right code."""

import io
import struct
import time
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from dermq import decoding, errors, imaging
from tests import bombs, dicoms, samples

PICTURE = samples.picture()
SMALL = np.asarray(PICTURE)
LARGE = samples.picture(3_000, 3_000)
J2K = samples.encoded(PICTURE, "JPEG2000", no_jp2=True)
"""One tile, whose header says 64 x 48."""
J2K_SIZES_AT = 8
_ITEM = b"\0\0\0\x15infe\2\0\0\0\0\1\0\0hvc1\0"


def _webp() -> bytes:
    [chunk] = [samples.encoded(LARGE, "WEBP", lossless=True)[12:]]
    canvas = b"VP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3]
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(chunk)) + b"WEBP" + canvas + chunk


def _jpeg_2000(width: int, height: int) -> bytes:
    """Say that there are more pixels, in tiles of which only the first one is there."""
    changed = bytearray(J2K)
    struct.pack_into(">II", changed, J2K_SIZES_AT, width, height)
    return bytes(changed)


def _tiff(jpeg: bytes, strips: int) -> bytes:
    """A TIFF of strips of one row, all in the same JPEG."""
    start = 10 + 12 * 9 + 4
    coded_at = start + 8 * strips
    tags = [
        *bombs.size_entries(64, strips)[:3],
        *(bombs.entry(259, 3, 1, 7), bombs.entry(262, 3, 1, 6), bombs.entry(273, 4, strips, start)),
        *(bombs.entry(277, 3, 1, 3), bombs.entry(278, 4, 1, 1), bombs.entry(279, 4, strips, start + 4 * strips)),
    ]
    offsets = struct.pack(f"<{2 * strips}I", *[coded_at] * strips, *[len(jpeg)] * strips)
    return bombs.tiff(*tags, after=offsets + jpeg)


def _heic(places: bytes) -> bytes:
    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    items = box(b"iinf", b"\0\0\0\0\0\1" + _ITEM)
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + box(b"meta", bytes(4) + items + box(b"iloc", places))


def _dicom(syntax: str, frame: bytes, colours: str = "RGB") -> bytes:
    return dicoms.write(SMALL, colours, syntax, frame=frame)


FILES: dict[str, Callable[[], bytes]] = {
    "WebP with pixels of another size": _webp,
    "JPEG 2000 without most of its tiles": lambda: _jpeg_2000(6_400, 4_800),
    "JPEG 2000 without its last tile": lambda: _jpeg_2000(128, 48),
    "TIFF whose pages lead back": lambda: bombs.tiff(*bombs.size_entries(), following=8),
    "TIFF of strips in one large JPEG": lambda: _tiff(samples.encoded(LARGE), 1_000),
    "HEIC of pieces without bytes": lambda: _heic(
        bytes(6) + struct.pack(">H", 9_000) + struct.pack(">HHH", 1, 0, 60_000) * 9_000
    ),
    "HEIC of pieces in the same bytes": lambda: (
        _heic(b"\0\0\0\0\4\0\0\1" + struct.pack(">HHH", 1, 0, 9_000) + struct.pack(">I", 9_000_000) * 9_000)
        + b"\1" * 9_000_000
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_contradicts_itself_is_damaged(name: str) -> None:
    data = FILES[name]()
    began = time.process_time()
    with pytest.raises(errors.Permanent) as refused:
        imaging.read(data, max_pixels=50_000_000)
    assert refused.value.code == "damaged"
    assert time.process_time() - began < 5


FRAMES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: _dicom("1.2.840.10008.1.2.4.50", samples.encoded(LARGE), "YBR_FULL"),
    "JPEG 2000": lambda: _dicom("1.2.840.10008.1.2.4.90", samples.encoded(LARGE, "JPEG2000", no_jp2=True)),
    "JPEG-LS": lambda: _dicom("1.2.840.10008.1.2.4.80", bytes(imagecodecs.jpegls_encode(np.asarray(LARGE)))),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_of_another_size_is_not_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, called = FRAMES[name](), list[str]()
    for library, function in (
        (simplejpeg, "decode_jpeg"),
        *((imagecodecs, one) for one in ("jpeg8_decode", "jpeg2k_decode", "jpegls_decode")),
    ):
        monkeypatch.setattr(library, function, lambda *_, **__: called.append(name))
    with pytest.raises(errors.Permanent, match="another size than it announces"):
        imaging.read(data, max_pixels=50_000_000)
    assert not called


@pytest.mark.parametrize("tile", [(16, 16), (64, 16), (100, 100)])
def test_tiles_that_are_all_there_are_read(tile: tuple[int, int]) -> None:
    data = samples.encoded(PICTURE, "JPEG2000", no_jp2=True, tile_size=tile)
    assert imaging.read(data, max_pixels=50_000_000).size == (64, 48)


def _rare_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(out, "PNG")
    return out.getvalue()


RARE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "PNG of 16 bits": ("png_decode", _rare_png),
    "JPEG of 12 bits": (
        "jpeg8_decode",
        lambda: bytes(imagecodecs.jpeg8_encode(np.full((64, 64), 2000, np.uint16), bitspersample=12)),
    ),
    "JPEG 2000 of 16 bits": (
        "jpeg2k_decode",
        lambda: bytes(imagecodecs.jpeg2k_encode(np.full((64, 64), 40_000, np.uint16), codecformat="j2k")),
    ),
    "JPEG-LS in DICOM": (
        "jpegls_decode",
        lambda: _dicom("1.2.840.10008.1.2.4.80", bytes(imagecodecs.jpegls_encode(SMALL))),
    ),
}


@pytest.mark.parametrize("name", RARE)
def test_a_lack_of_memory_is_not_called_damage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, make = RARE[name]
    data = make()
    decoding.decode(data, decoding.Limits(50_000_000))

    def lack(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(imagecodecs, function, lack)
    with pytest.raises(MemoryError):
        decoding.decode(data, decoding.Limits(50_000_000))
