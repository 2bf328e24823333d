"""The outcome of a claimed image: a prediction, or a failure of the image itself."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from dermq.formats import Size
from dermq.notes import Note


@dataclass(frozen=True)
class Predicted:
    """The outcome of an image that the engine has classified."""

    image_id: int
    row: dict[str, Any]
    """The columns of its prediction."""
    size: Size
    """Width and height of the file's image."""
    notes: tuple[Note, ...] = ()
    """What its lab should know of the file."""


@dataclass(frozen=True)
class Failed:
    """The outcome of an image that can never be classified."""

    image_id: int
    code: str
    detail: str


Outcome = Predicted | Failed


@dataclass(frozen=True)
class Provenance:
    """The worker that predicted, its engine and its bundle."""

    bundle_id: int
    engine: str
    worker: str
    ood_threshold: float


def make_prediction(
    image_id: int,
    probabilities: NDArray[np.float32],
    ood_score: float,
    milliseconds: float,
    provenance: Provenance,
    size: Size,
    notes: tuple[Note, ...] = (),
) -> Predicted:
    """Return the outcome of an image with these probabilities ``(7,)`` and this out-of-distribution score."""
    p = [float(value) for value in probabilities]
    best = int(np.argmax(probabilities))
    return Predicted(
        image_id,
        {
            "image_id": image_id,
            "bundle_id": provenance.bundle_id,
            **{f"p_{code}": value for code, value in zip(taxonomy.CODES, p, strict=True)},
            "diagnosis": taxonomy.CODES[best],
            "confidence": p[best],
            "entropy": -sum(value * math.log(value) for value in p if value > 0),
            "ood_score": ood_score,
            "out_of_distribution": ood_score > provenance.ood_threshold,
            "engine": provenance.engine,
            "worker": provenance.worker,
            "milliseconds": milliseconds,
            "predicted_at": datetime.now(UTC),
        },
        size,
        notes,
    )
