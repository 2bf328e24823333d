"""Engines compute probabilities from pixels: ONNX Runtime on the CPU, Keras where there is a GPU.

A new engine is one file in this folder and one entry in ``ENGINES``.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dermq import errors
from dermq.bundles import Bundle


@dataclass(frozen=True)
class Outputs:
    """The model's outputs for ``n`` images."""

    probabilities: NDArray[np.float32]
    """``(n, 7)``, each row summing to 1, classes in the order of the taxonomy."""
    ood_scores: NDArray[np.float32]
    """``(n,)``; a greater score means that the image is less like the training data."""


class Engine(Protocol):
    """Loads a bundle's model once and predicts with it."""

    name: str
    files: tuple[str, ...]
    """The files of a bundle that this engine needs."""
    tolerance: float
    """The largest difference from the golden outputs that rounding explains."""

    def load(self, bundle: Bundle) -> None:
        """Load the model. Raises Unfit when it cannot be loaded."""

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Predict ``(n, size, size, 3) uint8`` RGB."""


ENGINES = {"onnx": "onnxruntime", "keras": "keras"}
"""The package that each engine needs. ``create(step_images)`` in the module ``x`` of this folder builds the engine."""
AUTO = "auto"


def create(choice: str, *, step_images: int) -> Engine:
    """Return the engine called ``choice``; ``auto`` means Keras where TensorFlow finds a GPU, else ONNX Runtime.

    Raises Unfit when there is no such engine, or when the package that it needs is not installed.
    """
    if choice == AUTO:
        choice = "keras" if _find_gpu() else "onnx"
    if choice not in ENGINES:
        known = ", ".join((AUTO, *sorted(ENGINES)))
        raise errors.Unfit("no_engine", f"There is no engine {choice}; DERMQ_ENGINE must be one of {known}.")
    if importlib.util.find_spec(ENGINES[choice]) is None:
        raise errors.Unfit(
            "no_engine", f"The engine {choice} needs the package {ENGINES[choice]}, which is not installed."
        )
    engine: Engine = importlib.import_module(f"{__name__}.{choice}").create(step_images)
    return engine


def _find_gpu() -> bool:
    if importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
