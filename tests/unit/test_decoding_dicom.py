"""DICOM: photographs of one frame in every usual coding, and nothing of what a file says of patient and device."""

import logging

import numpy as np
import pytest
from pydicom import uid

from dermq import errors, imaging
from tests import dicoms, samples

LIMIT = 50_000_000
PICTURE = samples.picture(96, 72, seed=3)
GREY = PICTURE.convert("L")
COLOUR_FILES, GREY_FILES = dicoms.colour(PICTURE), dicoms.grey(GREY)
PIXELS = np.array(PICTURE)
PLAIN = dicoms.write(PIXELS)
CODED = COLOUR_FILES["JPEG 2000"]
JPEG = samples.encoded(samples.textured(), quality=90)


def refused(data: bytes) -> errors.Permanent:
    with pytest.raises(errors.Permanent) as told:
        imaging.read(data, max_pixels=LIMIT)
    return told.value


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_a_photograph_has_the_pixels_of_the_picture(kind: str) -> None:
    found = imaging.read(COLOUR_FILES[kind], max_pixels=LIMIT)
    assert (found.size, found.notes) == ((96, 72), ())
    assert np.abs(np.asarray(found.image, np.int16) - PIXELS).mean() < 1


@pytest.mark.parametrize("kind", GREY_FILES)
def test_a_grey_photograph_has_the_pixels_of_the_picture(kind: str) -> None:
    found = np.asarray(imaging.decode(GREY_FILES[kind], max_pixels=LIMIT), np.int16)
    assert np.abs(found - np.asarray(GREY.convert("RGB"), np.int16)).mean() < 1


REFUSED = {
    "cut": (PLAIN[: len(PLAIN) // 2], "damaged"),
    "cut JPEG": (
        dicoms.write(np.zeros((225, 300, 3)), "YBR_FULL_422", uid.JPEGBaseline8Bit, frame=JPEG[:-9000]),
        "damaged",
    ),
    "zeroed JPEG 2000": (CODED[:-1500] + bytes(600) + CODED[-900:], "damaged"),
    "another size": (dicoms.write(PIXELS[:50], "YBR_FULL_422", uid.JPEGBaseline8Bit, frame=JPEG), "damaged"),
    "no pixels": (PLAIN[:300], "unsupported_format"),
    "several frames": (dicoms.write(PIXELS, NumberOfFrames=2), "several_frames"),
    "no photograph": (dicoms.write(np.array(GREY), "MONOCHROME2", kind=dicoms.CT), "unsupported_pixels"),
    "signed": (dicoms.write(np.array(GREY), "MONOCHROME2", PixelRepresentation=1), "unsupported_pixels"),
    "measured values": (
        dicoms.write(np.array(GREY), "MONOCHROME2", RescaleSlope=2, RescaleIntercept=0),
        "unsupported_pixels",
    ),
    "a video": (dicoms.write(PIXELS, syntax=uid.MPEG4HP41, frame=b"1234"), "unsupported_pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_whole_photograph_of_one_frame_is_refused(kind: str) -> None:
    data, code = REFUSED[kind]
    assert refused(data).code == code


def test_too_many_pixels_are_told_before_they_are_decoded() -> None:
    with pytest.raises(errors.Permanent, match="at most") as told:
        imaging.read(PLAIN, max_pixels=1000)
    assert told.value.code == "too_many_pixels"


def test_text_in_a_picture_is_noted() -> None:
    found = imaging.read(dicoms.write(PIXELS, BurnedInAnnotation="YES"), max_pixels=LIMIT)
    assert [note.code for note in found.notes] == ["burned_in_annotation"]


def test_no_word_of_a_file_stands_in_an_error_a_note_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Also not where a patient's name stands in an element that is shown otherwise."""
    caplog.set_level(logging.DEBUG)
    name = dicoms.PATIENT.encode()
    odd = {
        "class": PLAIN.replace(dicoms.PHOTOGRAPH.encode(), name.ljust(len(dicoms.PHOTOGRAPH), b"x")),
        "colours": PLAIN.replace(b"CS\4\0RGB ", b"CS\x08\0Doe^Jane"),
        **{kind: data for kind, (data, _) in REFUSED.items()},
    }
    for kind, data in odd.items():
        told = refused(data)
        assert not any(word in told.detail for word in ("Doe", "Jane", "4711", "0815")), kind
    assert not any(word in caplog.text for word in ("Doe", "Jane", "4711", "0815"))
