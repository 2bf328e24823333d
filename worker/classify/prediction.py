"""Predicts one step of decoded images, and decides whether the engine or an image is the cause of a failure."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from dermq import errors
from dermq.queue import outcomes
from dermq.queue.claims import ClaimedImage
from dermq.queue.outcomes import Failed, Outcome, Provenance
from worker.classify import model
from worker.classify.engines import Outputs
from worker.classify.model import Model
from worker.decoders.pictures import Picture, Pixels
from worker.decoders.pool import Job

log = logging.getLogger(__name__)

Decoding = tuple[ClaimedImage, Job]
"""An image and what a decoder makes of it."""


class EngineLost(errors.Transient):
    """Raised when the engine fails on its golden inputs as well, for example after a GPU was lost."""


class Poisoned(Exception):
    """Raised when an image, not the engine, is the cause of a failure, so the claim's images must be tried alone."""


class Predictor:
    """Predicts steps of decoded images with one model."""

    def __init__(self, loaded: Model, provenance: Provenance, note_progress: Callable[[], None]) -> None:
        self._model = loaded
        self._provenance = provenance
        self._note_progress = note_progress

    def predict(self, step: Sequence[Decoding]) -> list[Outcome]:
        """Return an outcome for each image of ``step``.

        Raises Poisoned or MemoryError when the images must be tried alone, EngineLost or another Transient when the
        images are not the cause, and Unfit when the engine's results differ from the golden outputs.
        """
        images, pictures, found = self._collect(step)
        if not images:
            return found
        started = time.perf_counter()
        outputs = self._run_engine(np.stack([picture.pixels for picture in pictures]))
        self._note_progress()
        milliseconds = 1000 * (time.perf_counter() - started) / len(images)
        for n, (image, picture) in enumerate(zip(images, pictures, strict=True)):
            probabilities, score = outputs.probabilities[n], float(outputs.ood_scores[n])
            found.append(
                outcomes.make_prediction(
                    image.id, probabilities, score, milliseconds, self._provenance, picture.size, picture.notes
                )
            )
        return found

    def _collect(self, step: Sequence[Decoding]) -> tuple[list[ClaimedImage], list[Picture], list[Outcome]]:
        """Return the images that could be decoded, as such, and the outcomes of the others."""
        images: list[ClaimedImage] = []
        pictures: list[Picture] = []
        failed: list[Outcome] = []
        for image, job in step:
            try:
                pictures.append(job.future.result(timeout=0))
                images.append(image)
            except errors.Permanent as err:
                failed.append(Failed(image.id, err.code, err.detail))
        return images, pictures, failed

    def _run_engine(self, pixels: Pixels) -> Outputs:
        """Run the engine. When it fails, predict the golden inputs to decide whether engine or images are the cause."""
        try:
            outputs = self._model.engine.predict(pixels)
        except MemoryError:
            raise
        except Exception as err:  # the errors of engines have no common base class but Exception
            log.exception("the engine failed on a step of %d images", len(pixels))
            self._verify_again()
            raise Poisoned(str(err)) from err
        if not (np.isfinite(outputs.probabilities).all() and np.isfinite(outputs.ood_scores).all()):
            self._verify_again()
            raise Poisoned("the engine returned NaN or infinite values for these images")
        return outputs

    def _verify_again(self) -> None:
        """Raise Unfit when the engine's results differ from the golden outputs, and EngineLost when it fails."""
        try:
            model.verify(self._model.bundle, self._model.engine)
        except errors.Unfit:
            raise
        except Exception as err:  # the errors of engines have no common base class but Exception
            raise EngineLost("engine_lost", f"The engine fails on its golden inputs as well: {err}") from err
