"""Runs an ONNX graph over many images on the CPU.

Each core runs small batches of its own, so the activations stay in the core's cache. An image then takes a third less
processor time than in batches of 16 that are spread over the cores.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCH = 4


def run(
    model: bytes | Path | onnxruntime.InferenceSession,
    pixels: NDArray[np.uint8],
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, NDArray[np.float32]]:
    """Return every output of ``model`` for ``pixels (n, s, s, 3)``, by name; ``track`` may show the progress."""
    session = model if isinstance(model, onnxruntime.InferenceSession) else open_session(model)
    names = [output.name for output in session.get_outputs()]

    def predict(start: int) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = session.run(names, {"pixels": pixels[start : start + BATCH]})
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = list(threads.map(predict, track(range(0, len(pixels), BATCH))))
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


def open_session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """Return a CPU session that computes in the calling thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
