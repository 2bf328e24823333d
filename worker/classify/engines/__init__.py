"""Engines: what turns pixels into probabilities. ONNX Runtime on CPU, Keras where there is a GPU.

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
    """What a model says of ``n`` images."""

    probabilities: NDArray[np.float32]
    """``(n, 7)``, each row summing to 1, classes in the order of the taxonomy."""
    ood_scores: NDArray[np.float32]
    """``(n,)``; the greater, the less an image looks like the training data."""


class Engine(Protocol):
    """Loads a bundle's model once and predicts with it."""

    name: str
    files: tuple[str, ...]
    """The files of a bundle that this engine needs."""
    tolerance: float
    """Largest difference of a probability from the golden ones that rounding explains."""

    def load(self, bundle: Bundle) -> None:
        """Load the model. Raises Unfit when it cannot be loaded."""

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Predict ``(n, size, size, 3) uint8`` RGB."""


ENGINES = {"onnx": "onnxruntime", "keras": "keras"}
"""Every engine and the package it needs. Engine ``x`` is made by ``create(step_images)`` of the module ``x`` here."""
AUTO = "auto"


def create(choice: str, *, step_images: int) -> Engine:
    """Return the engine called ``choice``; ``auto`` takes Keras where TensorFlow sees a GPU, else ONNX Runtime.

    Raises Unfit when there is no such engine or the package it needs is not installed.
    """
    if choice == AUTO:
        choice = "keras" if _sees_gpu() else "onnx"
    if choice not in ENGINES:
        known = ", ".join((AUTO, *sorted(ENGINES)))
        raise errors.Unfit("no_engine", f"There is no engine {choice}; DERMQ_ENGINE must be one of {known}.")
    if importlib.util.find_spec(ENGINES[choice]) is None:
        raise errors.Unfit(
            "no_engine", f"The engine {choice} needs the package {ENGINES[choice]}, which is not installed."
        )
    engine: Engine = importlib.import_module(f"{__name__}.{choice}").create(step_images)
    return engine


def _sees_gpu() -> bool:
    if importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
