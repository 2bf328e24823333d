"""One picture in many kinds of file: the shipped bundle gives each the probabilities of the plain picture.

A file that holds the pixels as they are may move a probability by 0.02, a lossy one by 0.05. ``pytest -s`` prints the
tables. The pictures have a clear diagnosis: where two are nearly as likely, a plain JPEG of quality 95 moves more.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermq import bundles, imaging
from tests import dicoms, heic_files, samples, variants
from worker.classify import engines

EXACT, LOSSY = 0.02, 0.05
MAX_PIXELS = 50_000_000
Predict = Callable[[list[bytes]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def predict(bundle: bundles.Bundle) -> Iterator[Predict]:
    """A function from files, decoded by the newest recipe, to the probabilities ``(n, 7)`` of the shipped bundle."""
    engine = engines.create("onnx", step_images=16)
    engine.load(bundle)
    size = bundle.card.input_size

    def run(files: list[bytes]) -> NDArray[np.float32]:
        return engine.predict(
            np.stack([imaging.prepare(data, size, max_pixels=MAX_PIXELS) for data in files])
        ).probabilities

    yield run


@pytest.fixture(scope="module", params=["a lesion", "a photograph"])
def picture(request: pytest.FixtureRequest, bundle: bundles.Bundle) -> Image.Image:
    """A picture of even width and height. The photograph is one of the bundle's golden inputs."""
    if request.param == "a photograph":
        return Image.fromarray(np.load(bundle.path / bundles.GOLDEN)["pixels"][-1]).resize((300, 224))
    originals: dict[str, bytes] = request.getfixturevalue("originals")
    return imaging.decode(originals[min(originals)], max_pixels=MAX_PIXELS).resize((300, 224), Image.Resampling.LANCZOS)


def compare(predict: Predict, plain: Image.Image, files: dict[str, bytes], allowed: float) -> None:
    """Print by how much each file moves the probabilities of ``plain``, and fail where it is more than allowed."""
    expected, *found = predict([samples.encoded(plain, "PNG"), *files.values()])
    moved = {kind: float(np.abs(one - expected).max()) for kind, one in zip(files, found, strict=True)}
    table = [f"{amount:.4f}  {kind}" for kind, amount in moved.items()]
    sys.stdout.write("\n".join(["", f"most likely {expected.max():.3f}, allowed {allowed}", *table, ""]))
    assert {kind: amount for kind, amount in moved.items() if amount > allowed} == {}


def test_kinds_that_hold_the_pixels_keep_the_probabilities(predict: Predict, picture: Image.Image) -> None:
    compare(predict, picture, variants.lossless(picture), EXACT)


def test_lossy_kinds_keep_the_probabilities_nearly(predict: Predict, picture: Image.Image) -> None:
    few_colours = picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    palette = {"palette": samples.encoded(few_colours, "PNG"), "palette TIFF": samples.encoded(few_colours, "TIFF")}
    compare(predict, picture, {**variants.lossy(picture), **palette}, LOSSY)


def test_kinds_of_grey_keep_the_probabilities_of_the_grey_picture(predict: Predict, picture: Image.Image) -> None:
    compare(predict, picture.convert("L"), variants.grey(picture.convert("L")), EXACT)


def test_kinds_of_dicom_keep_the_probabilities(predict: Predict, picture: Image.Image) -> None:
    compare(predict, picture, dicoms.colour(picture), LOSSY)
    compare(predict, picture.convert("L"), dicoms.grey(picture.convert("L")), LOSSY)


@pytest.mark.parametrize(("mode", "data"), [("RGB", heic_files.COLOURS), ("L", heic_files.GREY)])
def test_heic_keeps_the_probabilities_nearly(predict: Predict, mode: str, data: bytes) -> None:
    compare(predict, samples.picture(96, 72, seed=3).convert(mode), {"HEIC": data}, LOSSY)
