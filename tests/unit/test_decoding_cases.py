"""The small inputs of ../shared/cases that are images, with what is right for each (its README)."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermq import errors, imaging

LIMIT = 50_000_000
AS = {
    "cmyk_no_adobe_marker.jpg": ("ref.png", 2),
    "gray12_maxsample4095.tif": ("ref_gray.png", 0),
    "gray_uint32.tif": ("ref_gray.png", 0),
    "icc_adobergb.jpg": ("ref.png", 3),
    "icc_prophoto.png": ("ref.png", 1),
    "iccp_1200k.png": ("ref.png", 0),
    "jpeg12bit.jpg": ("ref.png", 2),
    "rgb_float.tif": ("ref.png", 0),
    "text_badcrc.png": ("ref.png", 0),
    "tiff_with_thumbnail.tif": ("ref.png", 0),
}
"""The picture as which a file is read, and the most that a value may be apart on average."""
DAMAGED = ("jpeg_zero_512_middle.jpg", "jpeg_crlf.jpg")


@pytest.mark.parametrize("name", AS)
def test_a_case_is_read_as_its_reference(shared: Path, name: str) -> None:
    reference, most = AS[name]
    found = imaging.read((shared / "cases" / name).read_bytes(), max_pixels=LIMIT)
    with Image.open(shared / "cases" / reference) as expected:
        pixels = np.asarray(expected.convert("RGB"), np.int16)
    assert np.abs(np.asarray(found.image, np.int16) - pixels).mean() <= most
    assert found.notes == ()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_case_is_not_read(shared: Path, name: str) -> None:
    with pytest.raises(errors.Permanent) as told:
        imaging.read((shared / "cases" / name).read_bytes(), max_pixels=LIMIT)
    assert told.value.code == "damaged"
