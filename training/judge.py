"""Compares runs and bundles on the val split of every source. Choices are made by val alone, never by test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, scoring
from training import calibrate, evaluate, graph_outputs, tables
from training import manifest as manifests

MELANOMA = "mel"
Seen = dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]
"""Probabilities ``(n, 7)`` and truth ``(n,)`` by source."""


@dataclass(frozen=True)
class Judged:
    """The figures of one source."""

    images: int
    log_loss: float
    scored: bundles.Metrics


def judge_bundle(bundle: bundles.Bundle, manifest: manifests.Manifest, data: Path) -> dict[str, Judged]:
    """Return the figures of ``bundle`` by source."""
    graph = (bundle.path / bundles.ONNX_MODEL).read_bytes()
    return _judge(
        evaluate.predict_val_by_source(
            graph,
            bundle.card.input_size,
            manifest,
            data,
            graph_outputs.PROBABILITIES,
            recipe_version=bundle.card.recipe.version,
        )
    )


def judge_graph(graph: bytes, size: int, manifest: manifests.Manifest, data: Path) -> dict[str, Judged]:
    """Return the figures of a graph of logits by source, at the temperature that an export would choose."""
    seen = evaluate.predict_val_by_source(graph, size, manifest, data)
    logits = {source: (np.log(np.maximum(said, 1e-30)), truth) for source, (said, truth) in seen.items()}
    temperature = calibrate.fit_temperature(*logits[manifest.reference])
    return _judge(
        {source: (calibrate.apply_softmax(said / temperature), truth) for source, (said, truth) in logits.items()}
    )


def measure_mean_log_loss(judged: dict[str, Judged]) -> float:
    """Return the mean log loss over the sources, each with the same weight. Choose models by it."""
    return float(np.mean([one.log_loss for one in judged.values()]))


def make_table(found: dict[str, dict[str, Judged]]) -> str:
    """Return the figures of several models as a Markdown table; the last row of each model is the mean over sources."""
    rows = []
    for name, judged in found.items():
        rows += [[name, source, str(one.images), *_format_row(one)] for source, one in judged.items()]
        rows.append([name, "mean over sources", "", f"{measure_mean_log_loss(judged):.3f}", "", "", ""])
    return tables.make_table(
        ["model", "val of", "images", "log loss", "accuracy", "balanced accuracy", "melanoma recall"], rows
    )


def _judge(seen: Seen) -> dict[str, Judged]:
    return {
        source: Judged(len(truth), scoring.measure_log_loss(said, truth), scoring.score(said, truth))
        for source, (said, truth) in seen.items()
    }


def _format_row(one: Judged) -> list[str]:
    scored = one.scored
    return [
        f"{figure:.3f}" for figure in (one.log_loss, scored.accuracy, scored.balanced_accuracy, scored.recall[MELANOMA])
    ]
