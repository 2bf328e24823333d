"""Damage is an error: no file is read whose pixels are not all there. What harms no pixel is no damage."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dermq import errors, imaging
from tests import arithmetic_files, heic_files, samples

LIMIT = 50_000_000
END = b"\xff\xd9"
PICTURE = samples.textured(300, 225)
JPEGS = {
    "baseline": samples.encoded(PICTURE, quality=92),
    "progressive": samples.encoded(PICTURE, quality=92, progressive=True),
    "optimized": samples.encoded(PICTURE, quality=80, optimize=True),
    "with restarts": samples.encoded(PICTURE, quality=85, restart_marker_rows=2),
    "grey": samples.encoded(PICTURE.convert("L"), quality=92),
    "CMYK": samples.encoded(PICTURE.convert("CMYK"), quality=92),
}


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def zeroed(data: bytes, share: float, count: int = 512) -> bytes:
    at = int(len(data) * share)
    return data[:at] + bytes(count) + data[at + count :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut at a third": lambda data: cut(data, 1 / 3),
    "cut at a third, with an end marker": lambda data: cut(data, 1 / 3) + END,
    "cut near the end, with an end marker": lambda data: cut(data, 0.98) + END,
    "cut in half, then zeros": lambda data: cut(data, 0.5) + bytes(len(data) // 2),
    "512 bytes zeroed": lambda data: zeroed(data, 0.3),
    "4096 bytes zeroed": lambda data: zeroed(data, 0.6, 4096),
    "zeros before the end marker": lambda data: data[:-602] + bytes(600) + END,
    "LF became CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "LF became CR": lambda data: data.replace(b"\n", b"\r"),
    "512 bytes missing": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 512 :],
    "512 bytes twice": lambda data: data[: len(data) // 2] + data[len(data) // 2 - 512 :],
    "cut in the header": lambda data: data[:100],
    "fewer rows than announced": lambda data: samples.with_height(data, 400),
}
HARMLESS: dict[str, tuple[Callable[[bytes], bytes], list[str]]] = {
    "no end marker": (lambda data: data[:-2], []),
    "half an end marker": (lambda data: data[:-1], []),
    "text behind the end": (lambda data: data + b"a trailer of a camera", ["extra_bytes"]),
    "zeros behind the end": (lambda data: data + bytes(1000), ["extra_bytes"]),
    "zeros for the end marker": (lambda data: data[:-2] + bytes(700), ["extra_bytes"]),
    "bytes between segments": (lambda data: data.replace(b"\xff\xdb", b"junk\xff\xdb", 1), ["extra_bytes"]),
    "broken EXIF": (lambda data: data[:2] + b"\xff\xe1\0\x0eExif\0\0II*\0\xff\xff" + data[2:], []),
    "a JFIF version of the future": (lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\7"), []),
}


def refused(data: bytes) -> errors.Permanent:
    with pytest.raises(errors.Permanent) as told:
        imaging.read(data, max_pixels=LIMIT)
    return told.value


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_jpeg_is_not_read(kind: str, damage: str) -> None:
    data = DAMAGE[damage](JPEGS[kind])
    assert data != JPEGS[kind] and refused(data).code == "damaged"


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("what", HARMLESS)
def test_what_harms_no_pixel_of_a_jpeg_is_no_damage(kind: str, what: str) -> None:
    change, notes = HARMLESS[what]
    found = imaging.read(change(JPEGS[kind]), max_pixels=LIMIT)
    assert found.image.tobytes() == imaging.decode(JPEGS[kind], max_pixels=LIMIT).tobytes()
    assert [note.code for note in found.notes] == notes


def test_a_progressive_jpeg_without_its_last_scans_is_damaged() -> None:
    data = JPEGS["progressive"]
    for scan in (2, 5, 9):
        kept = b"\xff\xda".join(data.split(b"\xff\xda")[: scan + 1])
        assert "scans are missing" in refused(kept + END).detail


def test_random_bytes_in_a_progressive_jpeg_are_damage_also_where_they_take_the_right_number_of_bits() -> None:
    data = JPEGS["progressive"]
    for seed in range(30, 60):  # libjpeg has no warning for 33
        chance = random.Random(seed)
        at = chance.randrange(700, len(data) - 512)
        assert refused(data[:at] + chance.randbytes(512) + data[at + 512 :]).code == "damaged"


@pytest.mark.parametrize("options", [{"subsampling": n} for n in range(3)] + [{"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_symbols_of_a_whole_progressive_jpeg_fit_its_blocks(
    options: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn_away(data: bytes) -> None:
        raise ValueError("a kind of JPEG that libjxl does not know")

    monkeypatch.setattr(imagecodecs, "jpegxl_encode_jpeg", turn_away)
    picture = samples.textured(203, 150).convert(mode)
    for quality in (50, 92):
        data = samples.encoded(picture, quality=quality, progressive=True, **options)
        assert imaging.read(data, max_pixels=LIMIT).notes == ()


@pytest.mark.parametrize("data", [arithmetic_files.SEQUENTIAL, arithmetic_files.PROGRESSIVE])
def test_an_arithmetically_coded_jpeg_is_read_and_its_damage_found(data: bytes) -> None:
    found = imaging.read(data, max_pixels=LIMIT)
    with Image.open(io.BytesIO(data)) as image:
        assert found.notes == () and found.image.tobytes() == image.tobytes()
    assert imaging.decode(data[:-2], max_pixels=LIMIT).tobytes() == found.image.tobytes()
    for missing in (100, 300, 500):  # libjpeg reads zeros for them, and does not warn
        assert refused(data[: -2 - missing] + END).code == "damaged"
        assert refused(data[: -2 - missing]).code == "damaged"
    assert refused(data[:-400] + bytes(300) + data[-100:]).code == "damaged"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [1, 2])
def test_a_cmyk_jpeg_with_inks_of_other_resolutions_is_read_and_its_damage_found(
    progressive: bool, subsampling: int
) -> None:
    data = samples.encoded(PICTURE.convert("CMYK"), progressive=progressive, subsampling=subsampling)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"), np.int64)
    found = imaging.read(data, max_pixels=LIMIT)
    assert found.notes == () and np.abs(np.asarray(found.image, np.int64) - expected).max() <= 2
    for damage in ("cut at a third, with an end marker", "512 bytes zeroed", "512 bytes missing"):
        assert refused(DAMAGE[damage](data)).code == "damaged"


@pytest.mark.parametrize("color", ["black", "white", (200, 150, 140)])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {}])
def test_a_flat_jpeg_is_whole_although_its_data_is_full_of_zeros(color: object, options: dict[str, bool]) -> None:
    data = samples.encoded(Image.new("RGB", (1200, 900), color), **options)  # type: ignore[arg-type]
    assert imaging.read(data, max_pixels=LIMIT).notes == ()


def test_a_jpeg_is_reduced_while_it_is_decoded_and_damage_is_found_all_the_same() -> None:
    data = samples.encoded(samples.textured(640, 480), quality=92)
    assert imaging.decode(data, max_pixels=LIMIT, draft_size=100).size == (160, 120)
    with pytest.raises(errors.Permanent):
        imaging.decode(cut(data, 0.9) + END, max_pixels=LIMIT, draft_size=100)


def test_a_multi_picture_jpeg_is_read_with_a_note() -> None:
    data = samples.encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.reduce(2)])
    found = imaging.read(data, max_pixels=LIMIT)
    assert found.size == PICTURE.size and [note.code for note in found.notes] == ["further_pictures"]


def chunked(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png(chunks: list[tuple[bytes, bytes]], broken: tuple[bytes, ...] = ()) -> bytes:
    """A PNG of chunks, with a wrong checksum where the name is ``broken``."""
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        checksum = zlib.crc32(kind + body) ^ (kind in broken)
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    return out


PNG = samples.encoded(PICTURE, "PNG")
HEADER, *PIXELS, END_CHUNK = chunked(PNG)
DAMAGED_PNGS = {
    "half": cut(PNG, 0.5),
    "half and zeros": cut(PNG, 0.5) + bytes(len(PNG) // 2),
    "zeroed": zeroed(PNG, 0.5),
    "CRLF": PNG[:8] + PNG[8:].replace(b"\n", b"\r\n"),
    "checksum of IDAT": png([HEADER, *PIXELS, END_CHUNK], (b"IDAT",)),
    "checksum of IHDR": png([HEADER, *PIXELS, END_CHUNK], (b"IHDR",)),
    "half of IDAT": png([HEADER, (b"IDAT", PIXELS[0][1][:20_000]), END_CHUNK]),
    "no IDAT": png([HEADER, END_CHUNK]),
}
PROFILE_OF_MEGABYTES = b"name\0\0" + zlib.compress(np.random.default_rng(1).bytes(1_200_000))
WHOLE_PNGS = {
    "wrong checksum of text": png([HEADER, (b"tEXt", b"Comment\0hello"), *PIXELS, END_CHUNK], (b"tEXt",)),
    "text of megabytes": png([HEADER, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(9**7))), *PIXELS, END_CHUNK]),
    "profile of megabytes": png([HEADER, (b"iCCP", PROFILE_OF_MEGABYTES), *PIXELS, END_CHUNK]),
    "profile that is none": png([HEADER, (b"iCCP", b"name\0\0" + b"no zlib"), *PIXELS, END_CHUNK]),
    "broken EXIF": png([HEADER, (b"eXIf", b"MM\0*\xff\xff\xff\xff"), *PIXELS, END_CHUNK]),
    "no end": png([HEADER, *PIXELS]),
    "incomplete end": PNG[:-6],
}


@pytest.mark.parametrize("what", DAMAGED_PNGS)
def test_a_damaged_png_is_not_read(what: str) -> None:
    assert refused(DAMAGED_PNGS[what]).code == "damaged"


@pytest.mark.parametrize("what", WHOLE_PNGS)
def test_metadata_of_a_png_decides_nothing(what: str) -> None:
    assert imaging.decode(WHOLE_PNGS[what], max_pixels=LIMIT).tobytes() == PICTURE.tobytes()


def chunk_of_webp(data: bytes, shorter_by: int) -> bytes:
    """A WebP of one chunk that lacks its end, with lengths that fit."""
    body = data[20 : len(data) - shorter_by]
    body = body[: len(body) // 2 * 2]
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + data[12:16] + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("lossless", [False, True])
def test_an_incomplete_webp_is_not_read(lossless: bool) -> None:
    data = samples.encoded(PICTURE, "WEBP", lossless=lossless, quality=90)
    assert imaging.read(data, max_pixels=LIMIT).notes == ()
    half = len(data) // 2
    for bad in (data[:half], data[:-10], data[:half] + bytes(half), zeroed(data, 0.7), chunk_of_webp(data, half)):
        assert refused(bad).code == "damaged"


def test_metadata_of_a_webp_decides_nothing() -> None:
    plain = samples.encoded(PICTURE, "WEBP", quality=90)
    noted = samples.encoded(PICTURE, "WEBP", quality=90, exif=b"Exif\0\0broken", icc_profile=b"broken" * 30)
    expected = imaging.decode(plain, max_pixels=LIMIT).tobytes()
    assert imaging.decode(noted, max_pixels=LIMIT).tobytes() == expected
    assert imaging.decode(noted[:-9], max_pixels=LIMIT).tobytes() == expected  # EXIF comes last
    found = imaging.read(plain + b"trailer", max_pixels=LIMIT)
    assert found.image.tobytes() == expected and [note.code for note in found.notes] == ["extra_bytes"]


@pytest.mark.parametrize("color", ["black", (200, 150, 140)])
def test_a_flat_webp_is_whole_although_its_data_is_full_of_zeros(color: object) -> None:
    data = samples.encoded(Image.new("RGB", (2400, 1800), color), "WEBP")  # type: ignore[arg-type]
    assert imaging.decode(data, max_pixels=LIMIT).size == (2400, 1800)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
def test_an_incomplete_tiff_is_not_read(compression: str) -> None:
    data = samples.encoded(PICTURE, "TIFF", compression=compression, strip_size=40_000)
    with Image.open(io.BytesIO(data)) as image:
        start, length = (image.tag_v2[tag][-1] for tag in (273, 279))  # type: ignore[attr-defined]
    assert imaging.read(data, max_pixels=LIMIT).notes == ()
    bad = [data[: start + length // 2] if start > 5_000 else b"II*\0" + data[4:600]]
    if compression not in ("raw", "zstd"):  # these two hold nothing by which a change could be told
        bad.append(data[: start + 300] + bytes(512) + data[start + 812 :])
    for one in bad:
        assert refused(one).code == "damaged"


def test_an_incomplete_bmp_is_not_read() -> None:
    data = samples.encoded(PICTURE, "BMP")
    for bad in (cut(data, 0.5), data[:-1], data[:40]):
        assert refused(bad).code == "damaged"
    assert [note.code for note in imaging.read(data + b"12", max_pixels=LIMIT).notes] == ["extra_bytes"]


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "HEIC"])
def test_incomplete_files_of_newer_formats_are_not_read(format: str) -> None:
    data = heic_files.COLOURS if format == "HEIC" else samples.encoded(PICTURE, format)
    assert imaging.read(data, max_pixels=LIMIT).notes == ()
    half = len(data) // 2
    bad = [data[:half], data[:-10], data[:half] + bytes(len(data) - half)]
    for one in bad if format == "HEIC" else [*bad, zeroed(data, 0.6)]:  # the HEIC is too small for 512 zeros
        assert refused(one).code == "damaged"


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
@pytest.mark.parametrize("color", ["black", (200, 150, 140)])
def test_a_flat_picture_of_a_newer_format_is_whole(format: str, color: object) -> None:
    data = samples.encoded(Image.new("RGB", (1200, 900), color), format)  # type: ignore[arg-type]
    assert imaging.decode(data, max_pixels=LIMIT).size == (1200, 900)
