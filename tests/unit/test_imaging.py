"""Decoding from bytes to pixels."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from dermq import errors, imaging
from tests import samples

LIMIT = 50_000_000


def refused(data: bytes) -> errors.Permanent:
    """The error of a file that is not read."""
    with pytest.raises(errors.Permanent) as told:
        imaging.read(data, max_pixels=LIMIT)
    return told.value


@pytest.mark.parametrize("data", [b"hello, I am text", samples.svg(), samples.animated_gif()])
def test_other_content_is_unsupported(data: bytes) -> None:
    assert refused(data).code == "unsupported_format"


@pytest.mark.parametrize("format", ["TIFF", "WEBP", "PNG"])
def test_several_frames_are_refused(format: str) -> None:
    frames = [samples.picture(seed=seed) for seed in range(2)]
    data = samples.encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert refused(data).code == "several_frames"


def test_too_many_pixels_are_told_from_the_header() -> None:
    assert "100.0 megapixels; at most 50" in refused(samples.huge_png_header()).detail


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # a rotation by 90 degrees clockwise makes it upright
    found = imaging.read(samples.encoded(image, quality=95, exif=exif), max_pixels=LIMIT)
    upright = np.asarray(found.image)
    assert (found.image.size, found.size) == ((20, 40), (40, 20))
    assert upright[5, 10].min() > 200 and upright[35, 10].max() < 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_made_upright_as_pillow_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = samples.encoded(samples.picture(40, 24), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image)
    assert imaging.decode(data, max_pixels=LIMIT).tobytes() == expected.convert("RGB").tobytes()


def test_an_odd_exif_block_spoils_no_image() -> None:
    """The width is a fraction, which ``ImageOps.exif_transpose`` cannot write, so it raises ``struct.error``."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    data = samples.encoded(samples.picture(40, 20), exif=exif)
    odd = data.replace(b"\x1a\x01\x05\x00", b"\x00\x01\x05\x00").replace(b"\x01\x1a\x00\x05", b"\x01\x00\x00\x05")
    with Image.open(io.BytesIO(odd)) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert imaging.decode(odd, max_pixels=LIMIT).size == (20, 40)


def test_grey_of_16_bits_keeps_its_upper_bits() -> None:
    grey = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert imaging.decode(samples.encoded(grey, "PNG"), max_pixels=LIMIT).getpixel((0, 0)) == (128, 128, 128)


def test_transparent_pixels_lie_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert imaging.decode(samples.encoded(clear, "PNG"), max_pixels=LIMIT).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = samples.picture().convert(mode)
    format = "TIFF" if mode == "CMYK" else "PNG"
    pixels = imaging.prepare(samples.encoded(image, format), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


def test_the_whole_frame_is_squashed() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (90, 0, 100, 50))
    pixels = imaging.prepare(samples.encoded(image, "PNG"), 20)
    assert pixels[10, 19].min() > 200 and pixels[10, 10].max() < 50


def test_a_thumbnail_carries_no_exif() -> None:
    exif = Image.Exif()
    exif[0x010E] = "patient 42"
    data = samples.encoded(samples.picture(600, 450), exif=exif)
    with Image.open(io.BytesIO(imaging.make_thumbnail(imaging.decode(data, max_pixels=LIMIT)))) as small:
        assert max(small.size) == imaging.THUMBNAIL_SIZE
        assert not small.getexif() and b"patient" not in small.tobytes()
