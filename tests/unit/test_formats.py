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
    "BMP of OS/2": b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 301, 203, 1, 24),
}
WITHOUT_SIZE = {
    "TIFF": samples.encoded(PICTURE, "TIFF"),
    "TIFF big-endian": b"MM\0*" + bytes(60),
    "TIFF with its version swapped": b"II\0*" + samples.encoded(PICTURE, "TIFF")[4:],
    "BigTIFF": b"II+\0" + bytes(60),
    "JPEG with its size far behind": samples.encoded(PICTURE, icc_profile=b"p" * 90_000),
    "JPEG that counts its lines later": samples.encoded(PICTURE).replace(
        struct.pack(">HH", 203, 301), struct.pack(">HH", 0, 301)
    ),
}


def found(head: bytes) -> formats.ImageFormat:
    return formats.check(head[: formats.HEAD_BYTES], max_pixels=LIMIT, max_side=SIDE)


@pytest.mark.parametrize("kind", WITH_SIZE)
def test_the_size_is_read_where_it_stands_at_a_fixed_place(kind: str) -> None:
    head = WITH_SIZE[kind][: formats.HEAD_BYTES]
    assert found(head).name == kind.split()[0]
    assert found(head).size(head) == (301, 203)


@pytest.mark.parametrize("kind", WITHOUT_SIZE)
def test_a_size_that_stands_elsewhere_is_left_to_the_decoder(kind: str) -> None:
    head = WITHOUT_SIZE[kind][: formats.HEAD_BYTES]
    assert found(head).name == kind.split()[0].replace("BigTIFF", "TIFF")
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


@given(st.sampled_from(sorted({**WITH_SIZE, **WITHOUT_SIZE})), st.binary(max_size=200))
def test_any_bytes_behind_a_signature_are_read_without_an_error(kind: str, rest: bytes) -> None:
    whole = {**WITH_SIZE, **WITHOUT_SIZE}[kind]
    for kept in (4, 12, 20, 30):
        with contextlib.suppress(errors.UnsupportedFormat, errors.TooLarge):
            assert found(whole[:kept] + rest).name == kind.split()[0].replace("BigTIFF", "TIFF")


@pytest.mark.parametrize(
    "head", [b"", b"hello, I am text", samples.svg(), samples.animated_gif(), b"BM, a letter", b"\xff\xd8"]
)
def test_other_content_is_unsupported(head: bytes) -> None:
    with pytest.raises(errors.UnsupportedFormat, match="JPEG, PNG, TIFF, WebP and BMP are accepted"):
        found(head)


def test_too_many_pixels_are_told_from_the_leading_bytes() -> None:
    with pytest.raises(errors.TooLarge, match=r"100\.0 megapixels; at most 50"):
        found(samples.huge_png_header())


def test_every_format_of_the_registry_is_decoded() -> None:
    assert [one.name for one in formats.FORMATS] == list(decoding.MODULES)
    for name in (one.name.upper() for one in formats.FORMATS):
        data = samples.encoded(PICTURE, name)
        assert found(data).media_type == Image.MIME[name]
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
