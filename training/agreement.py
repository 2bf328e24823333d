"""How often a bundle says the same of a picture that was changed in a way that means nothing.

No truth is read here: only whether the diagnosis stays. Pictures are val's of the sharpest source that is nearly whole;
the originals are compared with what was made of them, whatever their split.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dermq import imaging, scoring
from training import graph_outputs, onnx_run, pixels, tables
from training import manifest as manifests

SHARP = "full_224x224_squashed"
ORIGINALS = "originals_600x450"
QUALITIES = (95, 90, 80, 70, 60, 50)
BLURS = (0.5, 1.0, 1.5)
"""Deviations in pixels of 224 a side."""


@dataclass(frozen=True)
class Agreement:
    """What one change does."""

    images: int
    equal: float
    """Share of equal diagnoses."""
    moved: float
    """Mean share of the probability that went to other diagnoses."""


def measure(path: Path, size: int, manifest: manifests.Manifest) -> dict[str, Agreement]:
    """The agreements of the ONNX graph at ``path``, by the change's name; changes whose source is missing left out."""
    session = onnx_run.open_session(path)
    found = {}
    if ORIGINALS in manifest.places:
        names = {entry.image_id for entry in manifest.of(ORIGINALS)}
        sharp, reduced = (_read(manifest, source, names) for source in (ORIGINALS, manifest.reference))
        found[f"{ORIGINALS} against {manifest.reference}"] = _compare(
            *(_predict(session, images, size) for images in (sharp, reduced))
        )
    source = SHARP if SHARP in manifest.places else manifest.reference
    images = _read(manifest, source, {entry.image_id for entry in manifest.of(source, "val")})
    plain = _predict(session, images, size)
    for name, change in CHANGES.items():
        found[name] = _compare(plain, _predict(session, [change(image) for image in images], size))
    return found


def table(found: dict[str, Agreement]) -> str:
    """A Markdown table."""
    rows = [[name, str(one.images), f"{one.equal:.3f}", f"{one.moved:.3f}"] for name, one in found.items()]
    return tables.table(["change", "images", "equal diagnoses", "probability moved"], rows)


def _read(manifest: manifests.Manifest, source: str, names: set[str]) -> list[Image.Image]:
    """The images ``names`` of ``source``, by their names."""
    wanted = {entry.member: entry.image_id for entry in manifest.of(source) if entry.image_id in names}
    files = {wanted[name]: content for name, content in manifests.read_files(manifest.places[source]) if name in wanted}
    return [imaging.decode(files[name], max_pixels=pixels.MAX_PIXELS) for name in sorted(files)]


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
    **{f"stored again as JPEG of quality {quality}": _compress(quality) for quality in QUALITIES},
    **{f"blurred by {radius:g} of 224 pixels": _blur(radius) for radius in BLURS},
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "mirrored left and right": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored top and bottom": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
}
"""A frame turned by 90 degrees and squashed is the squashed frame turned, so nothing else changes with it."""
