"""Measures how often a bundle keeps its diagnosis when an image is changed in a way that has no medical meaning.

The true diagnosis is not used. The images are those of the val split, from the sharpest source that is nearly complete.
The originals, of any split, are compared with their reduced copies in the reference source.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dermq import imaging, recipes, scoring
from training import graph_outputs, onnx_run, pixels, tables
from training import manifest as manifests

SHARP = "full_224x224_squashed"
ORIGINALS = "originals_600x450"
QUALITIES = (95, 90, 80, 70, 60, 50)
BLURS = (0.5, 1.0, 1.5)
"""Standard deviations of the Gaussian blur, in pixels of an image with a side of 224."""


@dataclass(frozen=True)
class Agreement:
    """The effect of one change on the predictions."""

    images: int
    equal: float
    """The share of images that keep their diagnosis."""
    moved: float
    """The mean total variation distance between the probabilities before and after the change."""


def measure(
    path: Path, size: int, manifest: manifests.Manifest, *, recipe_version: int = recipes.RECIPE_VERSION
) -> dict[str, Agreement]:
    """Return the agreements of the ONNX graph at ``path`` by the name of the change.

    ``size`` is the side of the graph's input in pixels, and ``recipe_version`` that of its bundle's card. The originals
    are left out when the manifest lacks them.
    """
    session = onnx_run.open_session(path)
    found = {}
    if ORIGINALS in manifest.places:
        names = {entry.image_id for entry in manifest.of(ORIGINALS)}
        sharp, reduced = (_read(manifest, source, names, recipe_version) for source in (ORIGINALS, manifest.reference))
        found[f"{ORIGINALS} against {manifest.reference}"] = _compare(
            *(_predict(session, images, size) for images in (sharp, reduced))
        )
    source = SHARP if SHARP in manifest.places else manifest.reference
    images = _read(manifest, source, {entry.image_id for entry in manifest.of(source, "val")}, recipe_version)
    plain = _predict(session, images, size)
    for name, change in CHANGES.items():
        found[name] = _compare(plain, _predict(session, [change(image) for image in images], size))
    return found


def make_table(found: dict[str, Agreement]) -> str:
    """Return the agreements as a Markdown table."""
    rows = [[name, str(one.images), f"{one.equal:.3f}", f"{one.moved:.3f}"] for name, one in found.items()]
    return tables.make_table(["change", "images", "equal diagnoses", "probability moved"], rows)


def _read(manifest: manifests.Manifest, source: str, names: set[str], recipe_version: int) -> list[Image.Image]:
    """Decode the images ``names`` of ``source``, sorted by name."""
    wanted = {entry.member: entry.image_id for entry in manifest.of(source) if entry.image_id in names}
    files = {wanted[name]: content for name, content in manifests.read_files(manifest.places[source]) if name in wanted}
    return [
        imaging.read(files[name], max_pixels=pixels.MAX_PIXELS, recipe_version=recipe_version).image
        for name in sorted(files)
    ]


def _predict(session: onnxruntime.InferenceSession, images: list[Image.Image], size: int) -> NDArray[np.float32]:
    squares = np.stack([imaging.squash(image, size) for image in images])
    return onnx_run.run(session, squares)[graph_outputs.PROBABILITIES]


def _compare(one: NDArray[np.float32], other: NDArray[np.float32]) -> Agreement:
    return Agreement(
        images=len(one),
        equal=float((scoring.decide(one) == scoring.decide(other)).mean()),
        moved=float(np.abs(one - other).sum(axis=1).mean() / 2),
    )


def _compress(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=quality)
        return Image.open(stored).convert("RGB")

    return change


def _blur(radius: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius * image.width / 224))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"saved again as JPEG of quality {quality}": _compress(quality) for quality in QUALITIES},
    **{f"blurred by {radius:g} of 224 pixels": _blur(radius) for radius in BLURS},
    "rotated by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "mirrored left and right": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored top and bottom": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
}
"""Images are squashed to a square later. Rotating first by 90 degrees gives the same pixels as rotating afterwards."""
