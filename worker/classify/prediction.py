"""From the decoded images of one engine step to their outcomes, and who is to blame when that fails."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import numpy as np

from dermq import errors
from dermq.queue import outcomes
from dermq.queue.claims import ClaimedImage
from dermq.queue.outcomes import Failed, Outcome, Provenance
from worker.classify import model
from worker.classify.engines import Outputs
from worker.classify.model import Model
from worker.decoders.pool import Pixels
from worker.process.shutdown import StopRequest

log = logging.getLogger(__name__)

STOP_CHECK_SECONDS = 0.1
"""How often a worker that waits for a decoder checks whether it is to stop."""

Decoding = tuple[ClaimedImage, Future[Pixels]]
"""An image and its pixels, which may still be decoded."""


class EngineLost(errors.Transient):
    """Raised when the engine no longer gives what it gave when it was verified, for example after a GPU was lost."""


class Poisoned(Exception):
    """Raised when images, and not the engine, are to blame for a failure of the engine."""


class Predictor:
    """Predicts steps of decoded images with one model."""

    def __init__(
        self, loaded: Model, provenance: Provenance, stop: StopRequest, note_progress: Callable[[], None]
    ) -> None:
        self._model = loaded
        self._provenance = provenance
        self._stop = stop
        self._note_progress = note_progress

    def predict(self, step: Sequence[Decoding]) -> list[Outcome]:
        """Return an outcome for each image of ``step``; for fewer when the worker is to stop.

        Raises Poisoned or MemoryError when the images must be tried alone, EngineLost or another Transient when they
        are not to blame, Unfit when the engine gives other results than before.
        """
        images, pixels, found = self._collect(step)
        if not images:
            return found
        started = time.perf_counter()
        outputs = self._engine_outputs(np.stack(pixels))
        self._note_progress()
        milliseconds = 1000 * (time.perf_counter() - started) / len(images)
        for image, probabilities, score in zip(images, outputs.probabilities, outputs.ood_scores, strict=True):
            found.append(outcomes.predicted(image.id, probabilities, float(score), milliseconds, self._provenance))
        return found

    def _collect(self, step: Sequence[Decoding]) -> tuple[list[ClaimedImage], list[Pixels], list[Outcome]]:
        """Wait for the decoders: return the images that were decoded, their pixels, and the outcomes of the others."""
        images: list[ClaimedImage] = []
        pixels: list[Pixels] = []
        failed: list[Outcome] = []
        for image, future in self._decoded(step):
            try:
                pixels.append(future.result())
                images.append(image)
            except errors.Permanent as err:
                failed.append(Failed(image.id, err.code, err.detail))
            except (errors.DermqError, MemoryError):
                raise
            except Exception as err:  # of whatever kind: tried alone, the image that raises it is found and fails
                raise Poisoned(f"decoding failed unexpectedly: {err!r}") from err
            self._note_progress()  # decoding is progress as well
        return images, pixels, failed

    def _decoded(self, step: Sequence[Decoding]) -> Iterator[Decoding]:
        """Yield the images of a step as they are decoded; end at the first that is not when the worker is to stop."""
        for image, future in step:
            while not future.done():
                if self._stop.requested:
                    return
                wait([future], timeout=STOP_CHECK_SECONDS)
            yield image, future

    def _engine_outputs(self, pixels: Pixels) -> Outputs:
        """Run the engine; when it fails, the golden inputs tell whether the engine or the images are to blame."""
        try:
            outputs = self._model.engine.predict(pixels)
        except MemoryError:
            raise
        except Exception as err:  # engines share no narrower base
            log.exception("the engine failed over %d images", len(pixels))
            self._verify_again()
            raise Poisoned(str(err)) from err
        if not (np.isfinite(outputs.probabilities).all() and np.isfinite(outputs.ood_scores).all()):
            self._verify_again()
            raise Poisoned("the engine gives no numbers for these images")
        return outputs

    def _verify_again(self) -> None:
        """Raise Unfit when the engine gives other results than before, EngineLost when it gives none at all."""
        try:
            model.verify(self._model.bundle, self._model.engine)
        except errors.Unfit:
            raise
        except Exception as err:  # engines share no narrower base
            raise EngineLost("engine_lost", f"The engine fails over its golden inputs as well: {err}") from err
