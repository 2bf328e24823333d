"""Right pixels: one picture in every way in which files store pixels is read as the same picture."""

import io
import struct

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dermq import errors, imaging, recipes
from dermq.decoding.raster import make_unsupported_pixels
from tests import heic_files, samples, variants

LIMIT = 50_000_000
PICTURE = samples.picture(96, 72, seed=3)
GREY = PICTURE.convert("L")
LOSSLESS, GREY_ONES, LOSSY = variants.lossless(PICTURE), variants.grey(GREY), variants.lossy(PICTURE)
PROFILED = variants.profiled(PICTURE)


def apart(data: bytes, expected: Image.Image, **options: int) -> NDArray[np.int16]:
    """How far each value of a file's pixels is from the expected one."""
    found = imaging.read(data, max_pixels=LIMIT, **options).image
    assert found.size == expected.size and found.mode == "RGB"
    return np.abs(np.asarray(found, np.int16) - np.asarray(expected.convert("RGB"), np.int16))


def refused(data: bytes) -> errors.Permanent:
    with pytest.raises(errors.Permanent) as told:
        imaging.read(data, max_pixels=LIMIT)
    return told.value


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_has_the_pixels_of_the_picture(kind: str) -> None:
    rounding = 3 if "YCbCr" in kind else 0
    assert apart(LOSSLESS[kind], PICTURE).max() <= rounding


@pytest.mark.parametrize("kind", GREY_ONES)
def test_a_grey_file_has_the_pixels_of_the_picture(kind: str) -> None:
    assert apart(GREY_ONES[kind], GREY).max() <= (1 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", LOSSY)
def test_a_lossy_file_has_nearly_the_pixels_of_the_picture(kind: str) -> None:
    assert apart(LOSSY[kind], PICTURE).mean() < 2


def test_a_heic_has_nearly_the_pixels_of_the_picture() -> None:
    assert apart(heic_files.COLOURS, PICTURE).mean() < 3 and apart(heic_files.GREY, GREY).mean() < 1


@pytest.mark.parametrize("kind", PROFILED)
def test_recipe_1_ignores_profiles_and_recipe_2_honours_them(kind: str) -> None:
    ignored = apart(PROFILED[kind], PICTURE, recipe_version=recipes.WITHOUT_PROFILES).mean()
    honoured = apart(PROFILED[kind], PICTURE, recipe_version=recipes.WITH_PROFILES).mean()
    assert ignored > 5 and honoured < 2


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_files_of_srgb_have_the_same_pixels_in_both_recipes(format: str) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for options in ({}, {"icc_profile": srgb}):
        data = samples.encoded(PICTURE, format, **options)
        first, second = (imaging.prepare(data, 48, recipe_version=version) for version in recipes.VERSIONS)
        assert np.array_equal(first, second)


WIDE = variants.rgb_profile("wide")


@pytest.mark.parametrize("profile", [b"no profile", WIDE[:300], WIDE.replace(b"RGB ", b"GRAY")])
def test_a_profile_that_is_broken_or_does_not_fit_is_ignored(profile: bytes) -> None:
    assert apart(samples.encoded(PICTURE, "PNG", icc_profile=profile), PICTURE).max() == 0


def test_a_profile_of_an_image_with_alpha_is_honoured() -> None:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(variants.rgb_profile("linear")))
    stored = ImageCms.profileToProfile(PICTURE, variants.SRGB, opened)
    assert stored is not None
    stored.putalpha(255)
    data = samples.encoded(stored, "PNG", icc_profile=variants.rgb_profile("linear"))
    assert apart(data, PICTURE).mean() < 2


def test_the_gamma_of_a_png_is_honoured() -> None:
    light = (np.asarray(PICTURE) / 255) ** 2.2
    data = samples.encoded(Image.fromarray(np.rint(255 * light).astype(np.uint8)), "PNG")
    linear = variants.with_chunk(data, b"gAMA", struct.pack(">I", 100_000))
    assert apart(linear, PICTURE).mean() < 3 < apart(data, PICTURE).mean()
    usual = variants.with_chunk(samples.encoded(PICTURE, "PNG"), b"gAMA", struct.pack(">I", 45_455))
    assert apart(usual, PICTURE).max() == 0


def test_transparent_pixels_lie_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    half = np.full((8, 8, 4), 0x8000, np.uint16)
    files = {
        "RGBA": samples.encoded(clear, "PNG"),
        "LA": samples.encoded(clear.convert("LA"), "PNG"),
        "palette": samples.encoded(palette, "PNG", transparency=1),
        "RGB with a clear colour": samples.encoded(Image.new("RGB", (8, 8), "red"), "PNG", transparency=(255, 0, 0)),
        "grey with a clear value": samples.encoded(Image.new("L", (8, 8), 7), "PNG", transparency=7),
        "WebP": samples.encoded(clear, "WEBP", lossless=True),
        "lossy WebP": samples.encoded(clear, "WEBP"),
        "TIFF": samples.encoded(clear, "TIFF"),
        "premultiplied TIFF": variants.tiff(np.zeros((8, 8, 4), np.uint8), extrasamples=["assocalpha"]),
    }
    for kind, data in files.items():
        assert imaging.decode(data, max_pixels=LIMIT).getpixel((3, 3)) == (255, 255, 255), kind
    grey = imaging.decode(variants.tiff(half, extrasamples=["unassalpha"]), max_pixels=LIMIT).getpixel((3, 3))
    assert grey == pytest.approx((191, 191, 191), abs=1)


REFUSED = {
    "several pages": samples.encoded(PICTURE, "TIFF", save_all=True, append_images=[PICTURE]),
    "floats beyond 1": variants.tiff(np.asarray(PICTURE, np.float32)),
    "floats that are none": variants.tiff(np.full((8, 8, 3), np.nan, np.float32)),
    "signed": variants.tiff(np.asarray(GREY).astype(np.int16) - 128),
    "12 bits in 16, undeclared": variants.tiff(np.asarray(GREY, np.uint16)),
    "raw camera data": variants.tiff(np.asarray(GREY), photometric="cfa", extratags=[
        (33421, "H", 2, (2, 2), False), (33422, "B", 4, b"\0\1\1\2", False)]),
    "complex": variants.tiff(np.zeros((8, 8), np.complex64)),
    "JPEG of two components": samples.encoded(PICTURE).replace(b"\x03\x01\x22\x00", b"\x02\x01\x22\x00", 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_pixels_that_are_not_understood_are_refused(kind: str) -> None:
    told = refused(REFUSED[kind])
    expected = "several_frames" if kind == "several pages" else "unsupported_pixels"
    assert told.code == expected, told.detail


def test_masks_and_reduced_pages_are_no_second_image() -> None:
    pixels = np.asarray(PICTURE)
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(pixels, photometric="rgb", metadata=None)
        file.write(pixels[..., 0] > 99, photometric="mask", subfiletype=4, metadata=None)
    assert apart(out.getvalue(), PICTURE).max() == 0


def test_the_text_says_what_to_do() -> None:
    assert make_unsupported_pixels("This").detail == "This cannot be read; save the image as PNG, TIFF or JPEG in RGB."
