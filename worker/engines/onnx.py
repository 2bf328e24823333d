"""ONNX Runtime on CPU: about three times the throughput of TensorFlow there, and a twentieth of the install."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dermq import bundles, errors
from worker.engines import Outputs


class OnnxEngine:
    """Runs ``model.onnx`` on all cores."""

    name = "onnx"
    files: tuple[str, ...] = (bundles.ONNX_MODEL, bundles.GOLDEN)
    tolerance = 1e-3

    def load(self, bundle: bundles.Bundle) -> None:
        """Load the model. Raises Unfit when ONNX Runtime does not take it."""
        options = onnxruntime.SessionOptions()
        # Threads that spin while they wait would take the cores that decoding needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.path / bundles.ONNX_MODEL, options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:  # the runtime's own errors share no narrower base
            raise errors.Unfit("bad_bundle", f"ONNX Runtime cannot load {bundle.path}: {err}") from err

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Predict ``(n, size, size, 3) uint8`` RGB."""
        probabilities, scores = self._session.run(["probabilities", "ood_score"], {"pixels": pixels})
        return Outputs(probabilities, scores)
