"""Scores an exported graph on one split; a worker computes exactly the same outputs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dermq import bundles, recipes, taxonomy
from training import calibrate, graph_outputs, onnx_run, pixels
from training import manifest as manifests

Track = Callable[[Iterable[Any]], Iterable[Any]]
CUT = ("full_224x224_squashed",)
"""The sources with uncropped frames on whose centre squares val is scored as well."""


def predict(
    graph: bytes | Path | onnxruntime.InferenceSession,
    size: int,
    manifest: manifests.Manifest,
    split: str,
    data: Path,
    track: Track = iter,
    *,
    source: str | None = None,
    view: str = pixels.WHOLE,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> dict[str, NDArray[np.float32]]:
    """Return every output of ``graph`` for a split's images in ``source`` or the reference, in the manifest's order.

    For a bundle, ``recipe_version`` is that of its card, so that it sees what a worker shows it.
    """
    images = pixels.load_split(
        manifest, source or manifest.reference, split, size, data, track, view=view, recipe_version=recipe_version
    )
    return onnx_run.run(graph, images, track=track)


def read_truth(manifest: manifests.Manifest, split: str, source: str | None = None) -> NDArray[np.int64]:
    """Return the class numbers ``(n,)`` of a split's images, from ``source`` or the reference."""
    entries = manifest.of(source or manifest.reference, split)
    return np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries], np.int64)


def predict_val_by_source(
    graph: bytes,
    size: int,
    manifest: manifests.Manifest,
    data: Path,
    output: str = graph_outputs.LOGITS,
    *,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Return probabilities ``(n, 7)`` and truth ``(n,)`` of val by source; of ``CUT`` also for centre squares.

    ``output`` names the output of ``graph`` to use, its logits or its probabilities; of a bundle, ``recipe_version`` is
    that of its card. Images of labs resemble no
    single source, so choices are made by all of them.
    """
    session = onnx_run.open_session(graph)
    seen = {}
    for source in manifest.places:
        known = read_truth(manifest, "val", source)
        for view in (pixels.WHOLE, pixels.CENTRE) if source in CUT else (pixels.WHOLE,):
            if len(known):
                predicted = predict(
                    session, size, manifest, "val", data, source=source, view=view, recipe_version=recipe_version
                )[output]
                name = source if view == pixels.WHOLE else f"{source} {view}"
                seen[name] = (
                    calibrate.apply_softmax(predicted)
                    if output == graph_outputs.LOGITS
                    else predicted.astype(np.float64),
                    known,
                )
    return seen


def describe(split: str, scored: bundles.Metrics) -> str:
    """Return the figures as a short text table."""
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
    """Return whether the card states the measured figures, up to ``tolerance``."""
    stated = card.metrics.get(split)
    return stated is not None and all(
        abs(getattr(stated, name) - getattr(scored, name)) <= tolerance
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error")
    )
