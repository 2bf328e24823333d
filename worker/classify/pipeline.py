"""The main loop of a classify worker: claim, decode, predict, record, until nothing waits or the time is up.

While the engine predicts, decoders work on what it predicts next. No transaction is open during either.
This module and ``web.errors`` are the two places where the class of an error decides what is done about it.
"""

import logging
import time
from collections.abc import Sequence

from dermq import db, errors
from dermq.queue import claims
from dermq.queue.claims import Claimant
from dermq.queue.leases import LeaseLost
from dermq.queue.outcomes import Provenance
from dermq.wakeups import Queue
from worker.classify.held_claims import HeldClaim, HeldClaims
from worker.classify.model import Model
from worker.classify.prediction import Decoding, EngineLost, Poisoned, Predictor
from worker.classify.runtime import ClassifyRuntime, describe_loaded
from worker.decoders.pictures import View
from worker.process.backoff import Backoff
from worker.process.lease_renewal import LeaseRenewal
from worker.process.shutdown import StopRequest

log = logging.getLogger(__name__)

STOP_CHECK_SECONDS = 0.1
"""A worker that waits for a decoder checks this often whether it must stop."""
ENGINE_LOSSES = 3
"""The process ends after this many engine losses in a row, so that a new process opens the device again."""


def drain(runtime: ClassifyRuntime) -> None:
    """Classify until nothing waits or ``drain_seconds`` are over; safe to run twice, and safe not to run.

    Raises Unfit when the current bundle cannot be verified, and EngineLost after ``ENGINE_LOSSES`` in a row.
    """
    runtime.wakeups.acknowledge(Queue.CLASSIFY)
    deadline = time.monotonic() + runtime.settings.drain_seconds
    engine_losses = 0
    with StopRequest(runtime.settings) as stop:
        backoff = Backoff(runtime.heartbeat, stop)
        while not stop.requested:
            if time.monotonic() > deadline:
                runtime.wakeups.send(Queue.CLASSIFY)
                return
            try:
                if not _work(runtime, stop, deadline):
                    runtime.heartbeat.note_progress()
                    return
                backoff.reset()
                engine_losses = 0
            except errors.Transient as err:
                engine_losses = engine_losses + 1 if isinstance(err, EngineLost) else 0
                if engine_losses == ENGINE_LOSSES:
                    raise
                log.warning("pausing %.0f s: %s", backoff.seconds, err)
                backoff.wait()


def _work(runtime: ClassifyRuntime, stop: StopRequest, deadline: float) -> bool:
    """Classify what waits for one model; return False when no claim was found."""
    waiting = db.read(runtime.sessions, claims.list_waiting_bundles)
    model = _find_model(runtime, waiting)
    if model is None:
        return False
    with LeaseRenewal(runtime.sessions, runtime.settings.lease_seconds) as renewal:
        bundle_id, card = runtime.find_bundle_id(model), model.bundle.card
        claimant = Claimant(runtime.name, bundle_id, runtime.settings.lease_seconds)
        provenance = Provenance(bundle_id, model.engine.name, runtime.name, card.out_of_distribution.threshold)
        held = HeldClaims(runtime, claimant, View(card.input_size, card.recipe.version), renewal, stop)
        predictor = Predictor(model, provenance, held.note_progress)
        return ClaimLoop(held, predictor, runtime.settings.step_images, stop, deadline).run()


def _find_model(runtime: ClassifyRuntime, waiting: Sequence[str]) -> Model | None:
    """Return the model for the first waiting bundle, or None. Loading may take minutes; the row shows no model then."""
    runtime.heartbeat.show_loaded(None)
    found = runtime.models.find(waiting) if waiting else None
    held = runtime.models.held
    runtime.heartbeat.show_loaded(describe_loaded(held) if held else None)
    return found


class ClaimLoop:
    """Runs claims through one model: the engine predicts what is decoded while decoders work on the rest."""

    def __init__(
        self, held: HeldClaims, predictor: Predictor, step_images: int, stop: StopRequest, deadline: float
    ) -> None:
        self._held = held
        self._predictor = predictor
        self._step_images = step_images
        self._stop = stop
        self._deadline = deadline

    def run(self) -> bool:
        """Work until nothing waits, the time is up or the worker stops; return False when no claim was found.

        All claims that are still held at the end are given back. Commits.
        """
        worked = False
        try:
            while self._may_continue():
                self._held.take()
                if not self._held.any:
                    break
                worked = True
                step = self._held.wait_for_step(self._step_images, STOP_CHECK_SECONDS)
                self._held.note_progress()  # decoders have time limits of their own, so waiting for them is no hang
                if step is not None:
                    self._finish(*step)
        finally:
            self._held.give_back_all()
        return worked

    def _may_continue(self) -> bool:
        return not self._stop.requested and time.monotonic() < self._deadline

    def _finish(self, claim: HeldClaim, step: Sequence[Decoding]) -> None:
        """Predict a step of a claim, and record it. Commits."""
        try:
            self._held.record(claim, self._predictor.predict(step))
            self._held.note_progress()
        except LeaseLost as err:
            log.warning("%s", err)
            self._held.forget(claim)
        except (MemoryError, Poisoned) as err:
            log.error("%d images are queued again as suspects, to be tried alone: %r", claim.left, err)
            self._held.give_back(claim, lost=True)
