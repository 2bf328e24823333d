"""Keras 3, TensorFlow by default; the same code runs on JAX or torch."""

import os

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, errors
from worker.classify.engines import Outputs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras


def create(step_images: int) -> "KerasEngine":
    """Return an engine that has loaded nothing and computes ``step_images`` at a time."""
    return KerasEngine(step_images)


class KerasEngine:
    """Runs ``model.keras`` as one compiled function of one fixed batch shape."""

    name = "keras"
    files: tuple[str, ...] = (bundles.KERAS_MODEL, bundles.GOLDEN)
    tolerance = 1e-3

    def __init__(self, step_images: int) -> None:
        self._step = step_images

    def load(self, bundle: bundles.Bundle) -> None:
        """Load the model. Raises Unfit when Keras does not take it."""
        try:
            self._model = keras.saving.load_model(bundle.path / bundles.KERAS_MODEL, compile=False)
        except Exception as err:  # Keras raises many kinds for a damaged file
            raise errors.Unfit("bad_bundle", f"Keras cannot load {bundle.path}: {err}") from err

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Predict ``(n, size, size, 3) uint8`` RGB, in steps of the fixed shape."""
        parts = [self._step_of(pixels[at : at + self._step]) for at in range(0, len(pixels), self._step)]
        return Outputs(
            np.concatenate([part.probabilities for part in parts]), np.concatenate([part.ood_scores for part in parts])
        )

    def _step_of(self, pixels: NDArray[np.uint8]) -> Outputs:
        padded = np.zeros((self._step, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        outputs = self._model.predict_on_batch(padded)
        return Outputs(
            np.asarray(outputs["probabilities"], np.float32)[: len(pixels)],
            np.asarray(outputs["ood_score"], np.float32)[: len(pixels)],
        )
