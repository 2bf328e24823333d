"""Running an ONNX graph over many images, as a CPU worker does."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCH = 16


def run(
    model: bytes | Path,
    pixels: NDArray[np.uint8],
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
    threads: int | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Every output of ``model`` for ``pixels (n, s, s, 3)``, by name; ``track`` may show progress over the batches."""
    session = open_session(model, threads=threads)
    names = [output.name for output in session.get_outputs()]
    parts = [
        session.run(names, {"pixels": np.ascontiguousarray(pixels[start : start + BATCH])})
        for start in track(range(0, len(pixels), BATCH))
    ]
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


def open_session(model: bytes | Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU, with a thread for each core unless told otherwise."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
