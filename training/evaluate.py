"""Scoring a bundle: exactly what a worker computes, from the exported graph, on one split."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, taxonomy
from training import manifest as manifests
from training import onnx_run, pixels

Track = Callable[[Iterable[Any]], Iterable[Any]]


def predict(
    model: bytes | Path, size: int, manifest: manifests.Manifest, split: str, data: Path, track: Track = iter
) -> dict[str, NDArray[np.float32]]:
    """Every output of ``model`` for the images of ``split`` in the reference source, in the manifest's order."""
    images = pixels.of_split(manifest, manifest.reference, split, size, data, track)
    return onnx_run.run(model, images, track=track)


def truth(manifest: manifests.Manifest, split: str) -> NDArray[np.int64]:
    """Class numbers ``(n,)`` of the images of ``split`` in the reference source."""
    return np.array([taxonomy.CODES.index(entry.diagnosis) for entry in manifest.of(manifest.reference, split)])


def describe(split: str, scored: bundles.Metrics) -> str:
    """The figures as a small table for people."""
    lines = [
        f"{split}: {scored.images} images, accuracy {scored.accuracy:.4f}, "
        f"balanced accuracy {scored.balanced_accuracy:.4f}, macro F1 {scored.macro_f1:.4f}, "
        f"calibration error {scored.expected_calibration_error:.4f}",
        "class  precision  recall     F1",
    ]
    for code in taxonomy.CODES:
        figures = (scored.precision[code], scored.recall[code], scored.f1[code])
        lines.append(f"{code:5}  " + "  ".join(f"{figure:9.4f}" for figure in figures))
    return "\n".join(lines)


def compare(card: bundles.Card, split: str, scored: bundles.Metrics, tolerance: float = 1e-6) -> bool:
    """Whether the card states what was measured now."""
    stated = card.metrics.get(split)
    return stated is not None and all(
        abs(getattr(stated, name) - getattr(scored, name)) <= tolerance
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error")
    )
