"""Engines: what turns pixels into probabilities. ONNX Runtime on CPU, Keras where there is a GPU."""

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


def create(choice: str, *, step_images: int) -> Engine:
    """The engine called ``choice``; ``auto`` takes Keras where TensorFlow sees a GPU, else ONNX Runtime.

    Raises Unfit when the packages it needs are not installed.
    """
    if choice == "auto":
        choice = "keras" if _sees_gpu() else "onnx"
    needed = {"onnx": "onnxruntime", "keras": "keras"}[choice]
    if importlib.util.find_spec(needed) is None:
        raise errors.Unfit("no_engine", f"The engine {choice} needs the package {needed}, which is not installed.")
    if choice == "onnx":
        from worker.classify.engines.onnx import OnnxEngine

        return OnnxEngine()
    from worker.classify.engines.keras import KerasEngine

    return KerasEngine(step_images)


def _sees_gpu() -> bool:
    if importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
