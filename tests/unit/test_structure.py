"""Files of too many parts are refused before an image library reads them, and quickly."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermq import errors, formats
from tests import bombs, dicoms, heic_files, samples
from worker.decoders import structure
from worker.decoders.structure import jpeg

LIMITS = {"max_pixels": 50_000_000, "max_side": 20_000}


def test_every_format_has_a_check() -> None:
    assert set(structure.CHECKS) == {one.name for one in formats.FORMATS}


@pytest.mark.parametrize("name", bombs.PARTS)
def test_a_file_of_too_many_parts_is_refused_in_a_moment(name: str) -> None:
    data = bombs.PARTS[name]()
    started = time.process_time()
    with pytest.raises(errors.Permanent, match="at most") as refused:
        structure.check(data, **LIMITS)
    assert refused.value.code == "too_many_parts"
    assert time.process_time() - started < 2, "a walk over 30 MB takes a hundredth of this"


@pytest.mark.parametrize("name", bombs.SIZES)
def test_a_size_beyond_the_limits_is_refused_wherever_it_stands(name: str) -> None:
    with pytest.raises(errors.Permanent) as refused:
        structure.check(bombs.SIZES[name](), **LIMITS)
    assert refused.value.code in {"side_too_long", "too_many_pixels"}


def _jpeg(**options: Any) -> bytes:
    return samples.encoded(samples.picture(640, 480), "JPEG", quality=95, **options)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture of skin"
    return exif


REAL: dict[str, Callable[[], bytes]] = {
    "progressive JPEG": lambda: _jpeg(progressive=True),
    "JPEG with restarts": lambda: _jpeg(restart_marker_blocks=1),
    "JPEG with EXIF, profile and comment": lambda: _jpeg(exif=_exif(), icc_profile=b"x" * 200_000, comment=b"c" * 500),
    "JPEG with fill bytes": lambda: b"\xff\xd8" + b"\xff" * 500 + _jpeg()[2:],
    "PNG": lambda: samples.encoded(samples.picture(1000, 1000), "PNG", exif=_exif()),
    "TIFF of one strip a row": lambda: samples.encoded(samples.picture(100, 5000), "TIFF", tiffinfo={278: 1}),
    "compressed TIFF": lambda: samples.encoded(samples.picture(300, 200), "TIFF", compression="tiff_lzw"),
    "BigTIFF": lambda: samples.encoded(samples.picture(300, 200), "TIFF", big_tiff=True),
    "WebP with EXIF": lambda: samples.encoded(samples.picture(300, 200), "WEBP", exif=_exif()),
    "BMP": lambda: samples.encoded(samples.picture(300, 200), "BMP"),
    "HEIC": lambda: heic_files.COLOURS,
    "AVIF": lambda: samples.encoded(samples.picture(300, 200), "AVIF"),
    "JPEG 2000 of tiles": lambda: samples.encoded(samples.picture(300, 200), "JPEG2000", tile_size=(64, 64)),
    "DICOM": lambda: dicoms.write(np.array(samples.picture(300, 200))),
    "DICOM of JPEG": lambda: dicoms.colour(samples.picture(300, 200))["JPEG of RGB"],
    "a truncated JPEG": samples.truncated_jpeg,
    "no image": lambda: b"no image at all",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", REAL)
def test_files_as_programs_write_them_are_let_through(name: str) -> None:
    structure.check(REAL[name](), **LIMITS)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"])
def test_a_file_that_ends_anywhere_is_no_error_of_the_walk(name: str) -> None:
    whole = samples.encoded(samples.picture(40, 30), name)
    for end in range(len(whole)):
        structure.check(whole[:end], **LIMITS)


def test_real_images_are_let_through(originals: dict[str, bytes]) -> None:
    for data in originals.values():
        structure.check(data, **LIMITS)


def test_scans_are_counted_as_a_decoder_reads_them() -> None:
    whole = _jpeg(progressive=True)
    scans = len(jpeg._MARKER.findall(whole)) and whole.count(b"\xff\xda")
    assert scans > 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "MOST_SCANS", scans - 1)
        with pytest.raises(errors.Permanent):
            structure.check(whole, **LIMITS)
