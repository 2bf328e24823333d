"""Formats and sizes by leading bytes alone."""

import contextlib
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from dermq import decoding, errors, formats, imaging
from dermq.formats import extensions
from dermq.settings import ROOT
from tests import samples

LIMIT = 50_000_000
SIDE = 20_000
PICTURE = samples.picture(301, 203)
WITH_SIZE = {
    "JPEG": samples.encoded(PICTURE),
    "JPEG progressive": samples.encoded(PICTURE, progressive=True),
    "JPEG with fill bytes": b"\xff\xd8\xff\xff\xff" + samples.encoded(PICTURE)[3:],
    "JPEG with a profile": samples.encoded(PICTURE, icc_profile=b"p" * 50_000),
    "PNG": samples.encoded(PICTURE, "PNG"),
    "WebP lossy": samples.encoded(PICTURE, "WEBP"),
    "WebP lossless": samples.encoded(PICTURE, "WEBP", lossless=True),
    "WebP extended": samples.encoded(PICTURE.convert("RGBA"), "WEBP", exif=b"Exif\0\0"),
    "BMP": samples.encoded(PICTURE, "BMP"),
    "BMP from the top": samples.encoded(PICTURE, "BMP").replace(struct.pack("<i", 203), struct.pack("<i", -203), 1),
    "JPEG 2000": samples.encoded(PICTURE, "JPEG2000"),
    "JPEG 2000 codestream": samples.encoded(PICTURE, "JPEG2000", no_jp2=True),
    "BMP of OS/2": b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 301, 203, 1, 24),
}
WITHOUT_SIZE = {
    "TIFF": samples.encoded(PICTURE, "TIFF"),
    "TIFF big-endian": b"MM\0*" + bytes(60),
    "TIFF with its version swapped": b"II\0*" + samples.encoded(PICTURE, "TIFF")[4:],
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "HEIC of another major brand": b"\0\0\0\x18ftypmif1\0\0\0\0miafheic",
    "AVIF": samples.encoded(PICTURE, "AVIF"),
    "AVIF of another major brand": b"\0\0\0\x18ftypmif1\0\0\0\0miafavif",
    "DICOM": bytes(128) + b"DICM\2\0\0\0UL",
    "DICOM without a preamble": b"\2\0\0\0UL\4\0",
    "BigTIFF": b"II+\0" + bytes(60),
    "JPEG with its size far behind": samples.encoded(PICTURE, icc_profile=b"p" * 90_000),
    "JPEG that counts its lines later": samples.encoded(PICTURE).replace(
        struct.pack(">HH", 203, 301), struct.pack(">HH", 0, 301)
    ),
}


def found(head: bytes) -> formats.ImageFormat:
    return formats.check(head[: formats.HEAD_BYTES], max_pixels=LIMIT, max_side=SIDE)


def name_of(kind: str) -> str:
    """The format that a kind of file has."""
    return "JPEG 2000" if kind.startswith("JPEG 2000") else kind.split()[0].replace("BigTIFF", "TIFF")


@pytest.mark.parametrize("kind", WITH_SIZE)
def test_the_size_is_read_where_it_stands_at_a_fixed_place(kind: str) -> None:
    head = WITH_SIZE[kind][: formats.HEAD_BYTES]
    assert found(head).name == name_of(kind)
    assert found(head).size(head) == (301, 203)


@pytest.mark.parametrize("kind", WITHOUT_SIZE)
def test_a_size_that_stands_elsewhere_is_left_to_the_decoder(kind: str) -> None:
    head = WITHOUT_SIZE[kind][: formats.HEAD_BYTES]
    assert found(head).name == name_of(kind)
    assert found(head).size(head) is None


@pytest.mark.parametrize("kind", WITH_SIZE)
def test_a_file_that_ends_in_its_header_has_no_size(kind: str) -> None:
    """No length of head raises another error than the two that callers expect."""
    for length in range(64):
        head = WITH_SIZE[kind][:length]
        try:
            assert found(head).size(head) in (None, (301, 203))
        except errors.UnsupportedFormat:
            assert length < 18


@given(
    st.sampled_from(sorted(kind for kind in {**WITH_SIZE, **WITHOUT_SIZE} if "major brand" not in kind)),
    st.binary(max_size=200),
)
def test_any_bytes_behind_a_signature_are_read_without_an_error(kind: str, rest: bytes) -> None:
    whole = {**WITH_SIZE, **WITHOUT_SIZE}[kind]
    for kept in (4, 12, 20, 30):
        with contextlib.suppress(errors.UnsupportedFormat, errors.TooLarge):
            assert found(whole[:kept] + rest).name == name_of(kind)


@pytest.mark.parametrize(
    "head", [b"", b"hello, I am text", samples.svg(), samples.animated_gif(), b"BM, a letter", b"\xff\xd8"]
)
def test_other_content_is_unsupported(head: bytes) -> None:
    with pytest.raises(errors.UnsupportedFormat, match=f"{formats.list_names()} are accepted"):
        found(head)


def test_too_many_pixels_are_told_from_the_leading_bytes() -> None:
    with pytest.raises(errors.TooLarge, match=r"100\.0 megapixels; at most 50"):
        found(samples.huge_png_header())


def test_every_format_of_the_registry_is_decoded() -> None:
    assert [one.name for one in formats.FORMATS] == list(decoding.MODULES)
    for name in (one.name.upper() for one in formats.FORMATS if one.name not in ("HEIC", "DICOM")):
        data = samples.encoded(PICTURE, name.replace(" ", ""))
        assert found(data).media_type == Image.MIME[name.replace(" ", "")]
        assert imaging.decode(data, max_pixels=LIMIT).size == (301, 203)


def test_every_signature_that_pillow_takes_for_a_tiff_is_one() -> None:
    for signature in TiffImagePlugin.PREFIXES:
        assert found(signature + bytes(60)).name == "TIFF"


@pytest.mark.parametrize("module", ["web.app", "worker.intake.runtime", "worker.reaper"])
def test_the_web_the_unpacker_and_the_reaper_do_without_pillow(module: str) -> None:
    """Imported where Pillow cannot be found, as in the web's container."""
    program = f"import sys; sys.modules['PIL'] = None; import {module}"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


OTHERS = {
    "a GIF image": samples.animated_gif(),
    "an SVG drawing": samples.svg(),
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3",
    "a PDF document, behind junk": b"\r\n  %PDF-1.4",
    "camera raw data (Canon CR2)": b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
    "camera raw data (Canon CR3)": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "a video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "a video of AVI": b"RIFF\0\0\0\0AVI LIST",
    "an office document": samples.archive({"[Content_Types].xml": b"", "word/document.xml": b""}),
    "a ZIP archive": samples.archive({"a.jpg": samples.jpeg()}),
    "text": "Läsion 1; nv; links".encode(),
    "text of Windows": "Läsion 1; nv; links".encode("cp1252"),
    "JSON": b'{"image": 1}',
    "a web page": b"<!DOCTYPE html><html>",
    "the part of a file that macOS keeps beside it": b"\0\5\x16\7" + bytes(80),
    "looks like a JPEG image whose first bytes were changed": samples.jpeg().decode("latin-1").encode("utf-8"),
    "looks like a PNG image whose first bytes were changed": samples.encoded(PICTURE, "PNG").replace(b"\r\n", b"\n"),
    "has no value but one": bytes(5000),
    "is of no kind of file that is known": b"\x93\x01\x82\x05" * 9,
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_of_no_accepted_format_is_called_by_what_it_is(what: str) -> None:
    with pytest.raises(errors.UnsupportedFormat) as told:
        found(OTHERS[what])
    assert what.split(",")[0].split(" of AVI")[0].split(" of Windows")[0] in told.value.detail


@pytest.mark.parametrize(
    ("name", "noted"),
    [("a.jpg", False), ("a.JPEG", False), ("a.png", True), ("b/a.pdf", True), ("a", False), ("a.1", False)],
)
def test_an_extension_that_contradicts_the_content_is_noted(name: str, noted: bool) -> None:
    told = extensions.note_contradiction(name, found(samples.jpeg()))
    assert [note.code for note in told] == ["other_extension"] * noted


def test_every_format_has_its_extensions() -> None:
    assert list(extensions.BY_FORMAT) == [one.name for one in formats.FORMATS]
