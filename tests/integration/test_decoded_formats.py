"""Every kind of file is decoded in a confined decoder, which can import nothing and open no file, as it is here."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from dermq import errors, imaging, recipes
from tests import arithmetic_files, dicoms, heic_files, samples, variants
from worker.decoders.decoder import COMMAND, Decoder
from worker.decoders.frames import Request

SECONDS = 60.0
SIZE = 64
REQUEST = Request(SIZE, recipes.RECIPE_VERSION, draft=False, max_pixels=50_000_000, max_side=20_000)
PICTURE = samples.picture(96, 72, seed=3)
GREY = PICTURE.convert("L")
FILES = {
    **variants.lossless(PICTURE),
    **{f"grey {kind}": data for kind, data in variants.grey(GREY).items()},
    **{f"lossy {kind}": data for kind, data in variants.lossy(PICTURE).items()},
    **{f"DICOM, {kind}": data for kind, data in {**dicoms.colour(PICTURE), **dicoms.grey(GREY)}.items()},
    "HEIC": heic_files.COLOURS,
    "grey HEIC": heic_files.GREY,
    "arithmetic JPEG": arithmetic_files.SEQUENTIAL,
    "progressive arithmetic JPEG": arithmetic_files.PROGRESSIVE,
    "TIFF with a text that is not UTF-8": variants.tiff(
        np.array(PICTURE), extratags=[(270, "s", 0, b"\xa8 a lab", False)]
    ),
    "fax": samples.encoded(GREY.convert("1"), "TIFF", compression="group4"),
}
DAMAGED = {
    "JPEG": samples.truncated_jpeg(),
    "HEIC": heic_files.COLOURS[:900],
    "DICOM": dicoms.write(np.array(PICTURE))[:9000],
    "JPEG 2000": samples.encoded(samples.textured(), "JPEG2000")[:9000],
}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    started = Decoder(COMMAND, memory_bytes=1_500_000_000, seconds=SECONDS)
    started.wait_until_ready()
    yield started
    started.close()


@pytest.mark.parametrize("kind", FILES)
def test_a_confined_decoder_gives_the_pixels_that_training_sees(decoder: Decoder, kind: str) -> None:
    until = time.monotonic() + SECONDS
    decoder.send(REQUEST, FILES[kind], until)
    found = decoder.receive(SIZE, until)
    assert np.array_equal(found.pixels, imaging.prepare(FILES[kind], SIZE))
    assert found.notes == imaging.read(FILES[kind], max_pixels=50_000_000).notes


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_confined_decoder_tells_damage(decoder: Decoder, kind: str) -> None:
    until = time.monotonic() + SECONDS
    decoder.send(REQUEST, DAMAGED[kind], until)
    with pytest.raises(errors.Permanent) as told:
        decoder.receive(SIZE, until)
    assert told.value.code == "damaged"
