"""What becomes of a claimed image: a prediction, or a failure of its own."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from dermq.formats import Size


@dataclass(frozen=True)
class Predicted:
    """An image that the engine saw."""

    image_id: int
    row: dict[str, Any]
    """The columns of its prediction."""
    size: Size
    """Width and height of the file's image."""


@dataclass(frozen=True)
class Failed:
    """An image that can never be classified as it is."""

    image_id: int
    code: str
    detail: str


Outcome = Predicted | Failed


@dataclass(frozen=True)
class Provenance:
    """Who predicted with what."""

    bundle_id: int
    engine: str
    worker: str
    ood_threshold: float


def predicted(
    image_id: int,
    probabilities: NDArray[np.float32],
    ood_score: float,
    milliseconds: float,
    provenance: Provenance,
    size: Size,
) -> Predicted:
    """The prediction of one image from its seven ``(7,)`` probabilities."""
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
    )
