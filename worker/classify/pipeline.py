"""The heart of a worker: claim, decode, predict, record, over and over for a while.

While the engine predicts one claim, the next is claimed and decoded in threads. No transaction is open meanwhile.
Here, and in ``web.errors``, the class of an error decides what is done about it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sqlalchemy.orm import Session

from dermq import batches, db, errors
from dermq.queue import claims, outcomes
from dermq.queue.claims import Claimant, ClaimedImage, Lease
from dermq.queue.leases import LeaseLost
from dermq.queue.outcomes import Failed, Outcome, Provenance
from dermq.wakeups import Queue
from worker.classify import model
from worker.classify.engines import Outputs
from worker.classify.model import Model
from worker.decoders.pool import Decoder, Pixels
from worker.process.lease_renewal import LeaseRenewal
from worker.process.runtime import Runtime
from worker.process.shutdown import Stop

log = logging.getLogger(__name__)

ENGINE_LOSSES = 3
"""After so many in a row the process ends, so that a new one finds the device afresh."""
PAUSE_SECONDS = (1.0, 30.0)
"""Least and greatest pause after a fault of the surroundings; it doubles from one fault to the next."""


STOP_LOOK_SECONDS = 0.1
"""How often a worker that waits for a decoder looks whether it is to stop."""


class EngineLost(errors.Transient):
    """Raised when the engine no longer gives what it gave when it was verified: its device is lost, say."""


class Poisoned(Exception):
    """Raised when images, and not the engine, are to blame for a failure of the engine."""


@dataclass(frozen=True)
class Held:
    """A claim whose images are being decoded."""

    lease: Lease
    decoding: list[tuple[ClaimedImage, Future[Pixels]]] = field(default_factory=list)

    def steps(self, size: int) -> Iterator[Sequence[tuple[ClaimedImage, Future[Pixels]]]]:
        for at in range(0, len(self.decoding), size):
            yield self.decoding[at : at + size]


def drain(runtime: Runtime) -> None:
    """Work for a while on whatever waits; safe to run twice, and safe not to run."""
    runtime.wakeups.acknowledge(Queue.CLASSIFY)
    deadline = time.monotonic() + runtime.settings.drain_seconds
    pause, engine_losses = PAUSE_SECONDS[0], 0
    with Stop(runtime.settings) as stop:
        while not stop.requested:
            if time.monotonic() > deadline:
                runtime.wakeups.send(Queue.CLASSIFY)
                return
            try:
                if not _work(runtime, stop, deadline):
                    runtime.heartbeat.progress()
                    return
                pause, engine_losses = PAUSE_SECONDS[0], 0
            except errors.Transient as err:
                engine_losses = engine_losses + 1 if isinstance(err, EngineLost) else 0
                if engine_losses == ENGINE_LOSSES:
                    raise
                log.warning("pausing %.0f s: %s", pause, err)
                _pause(runtime, pause, stop)
                pause = min(2 * pause, PAUSE_SECONDS[1])


def _work(runtime: Runtime, stop: Stop, deadline: float) -> bool:
    """Work with one model until nothing waits for it; says whether anything was done."""
    waiting = db.read(runtime.sessions, claims.waiting_bundles)
    found = _find(runtime, waiting)
    if found is None:
        return False
    with (
        Decoder(runtime.blobs, runtime.settings) as decoder,
        LeaseRenewal(runtime.sessions, runtime.settings.lease_seconds) as renewal,
    ):
        return _Line(runtime, found, decoder, renewal, stop, deadline).run()


def _find(runtime: Runtime, waiting: Sequence[str]) -> Model | None:
    """The model for what waits; to load one may take minutes, in which this worker holds none."""
    runtime.heartbeat.hold(None)
    found = runtime.models.find(waiting) if waiting else None
    runtime.heartbeat.hold(runtime.models.held)
    return found


class _Line:
    """A production line for one model: at most one claim at the engine and one being decoded ahead."""

    def __init__(
        self,
        runtime: Runtime,
        loaded: Model,
        decoder: Decoder,
        renewal: LeaseRenewal,
        stop: Stop,
        deadline: float,
    ) -> None:
        self._runtime = runtime
        self._model = loaded
        self._decoder = decoder
        self._renewal = renewal
        self._stop = stop
        self._deadline = deadline
        bundle_id = _bundle_id(runtime, loaded)
        self._claimant = Claimant(runtime.name, bundle_id, runtime.settings.lease_seconds)
        self._provenance = Provenance(
            bundle_id, loaded.engine.name, runtime.name, loaded.bundle.card.out_of_distribution.threshold
        )
        self._held: list[Held] = []

    def run(self) -> bool:
        """Work until nothing waits, time is up or the worker stops. What is held then is given back."""
        worked = after_suspect = False
        try:
            self._claim()
            while self._held and self._going():
                worked = True
                suspect = self._held[0].lease.alone
                if not suspect and not after_suspect:
                    self._claim()
                self._finish(self._held[0])
                if not self._held:
                    self._claim(suspects_first=not suspect)
                after_suspect = suspect
        finally:
            self._return_all()
        return worked

    def _going(self) -> bool:
        return not self._stop.requested and time.monotonic() < self._deadline

    def _claim(self, *, suspects_first: bool = True) -> None:
        """Claim what is next. Suspects, which need a worker that holds nothing, take turns with all others."""
        most = self._runtime.settings.claim_images
        turns: list[Callable[[Session, Claimant], Lease | None]] = [partial(claims.take, most=most)]
        if not self._held:
            turns.insert(0 if suspects_first else 1, claims.take_suspect)
        leases = (db.transact(self._runtime.sessions, take, self._claimant) for take in turns)
        lease = next((lease for lease in leases if lease is not None), None)
        if lease is None:
            return
        self._renewal.hold(lease.token)
        self._runtime.heartbeat.progress()
        held = Held(lease)
        self._held.append(held)  # before anything else can fail, so that it is given back
        size = self._model.bundle.card.input_size
        for image in lease.images:
            held.decoding.append((image, self._decoder.start(image, size)))
        if len(lease.images) == most:
            self._runtime.wakeups.send(Queue.CLASSIFY)  # another worker may be idle

    def _finish(self, held: Held) -> None:
        """Take a claim through the engine, a step at a time, each recorded as soon as it is predicted."""
        try:
            for step in held.steps(self._runtime.settings.step_images):
                if self._stop.requested:
                    return
                self._record(held, self._predict(step))
                self._get_on()
            if not self._stop.requested:  # else a step may have been cut short
                self._let_go(held)
        except LeaseLost as err:
            log.warning("%s", err)
            self._let_go(held)
        except (MemoryError, Poisoned) as err:
            log.error("%d images are to be tried alone: %r", len(held.lease.images), err)
            self._return(held, lost=True)

    def _predict(self, step: Sequence[tuple[ClaimedImage, Future[Pixels]]]) -> list[Outcome]:
        ready: list[tuple[ClaimedImage, Pixels]] = []
        found: list[Outcome] = []
        for image, future in self._decoded(step):
            try:
                ready.append((image, future.result()))
            except errors.Permanent as err:
                found.append(Failed(image.id, err.code, err.detail))
            except (errors.DermqError, MemoryError):
                raise
            except Exception as err:  # of whatever kind: tried alone, the image that raises it is found and fails
                raise Poisoned(f"decoding failed unexpectedly: {err!r}") from err
            self._get_on()  # decoding is progress as well
        if not ready:
            return found
        started = time.perf_counter()
        outputs = self._engine_outputs(np.stack([pixels for _, pixels in ready]))
        self._get_on()
        milliseconds = 1000 * (time.perf_counter() - started) / len(ready)
        for (image, _), probabilities, score in zip(ready, outputs.probabilities, outputs.ood_scores, strict=True):
            found.append(outcomes.predicted(image.id, probabilities, float(score), milliseconds, self._provenance))
        return found

    def _decoded(
        self, step: Sequence[tuple[ClaimedImage, Future[Pixels]]]
    ) -> Iterator[tuple[ClaimedImage, Future[Pixels]]]:
        """The images of a step as they are decoded; up to the first that is not when the worker is to stop."""
        for image, future in step:
            while not future.done():
                if self._stop.requested:
                    return
                wait([future], timeout=STOP_LOOK_SECONDS)
            yield image, future

    def _engine_outputs(self, pixels: Pixels) -> Outputs:
        """Predict; when the engine fails, the golden inputs tell whether the engine or the images are to blame."""
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

    def _record(self, held: Held, found: list[Outcome]) -> None:
        self._persist(partial(db.transact, self._runtime.sessions, claims.record, held.lease.token, found))

    def _return_all(self) -> None:
        """Give back what is held, each claim whatever becomes of the other, and wake somebody for it."""
        for held in tuple(self._held):
            try:
                self._return(held)
            except errors.Transient as err:
                log.error("claim %s is not given back and its lease will run out: %s", held.lease.token, err)

    def _return(self, held: Held, *, lost: bool = False) -> None:
        for _, future in held.decoding:
            future.cancel()
        self._persist(partial(db.transact, self._runtime.sessions, claims.give_back, held.lease.token, lost=lost))
        self._let_go(held)
        self._runtime.wakeups.send(Queue.CLASSIFY)

    def _persist(self, write: Callable[[], object]) -> None:
        """Write to the database; wait for one that is away as long as the lease lasts, so that no work is redone."""
        pause = PAUSE_SECONDS[0]
        until = time.monotonic() + self._runtime.settings.lease_seconds
        while True:
            try:
                write()
                return
            except errors.Transient as err:
                if time.monotonic() > until or self._stop.requested:
                    raise
                log.warning("writing again in %.0f s: %s", pause, err)
                self._get_on()  # waiting is meant: the lease is renewed as soon as the database is back
                _pause(self._runtime, pause, self._stop)
                pause = min(2 * pause, PAUSE_SECONDS[1])

    def _get_on(self) -> None:
        self._renewal.progress()
        self._runtime.heartbeat.progress()

    def _let_go(self, held: Held) -> None:
        self._renewal.drop(held.lease.token)
        self._held.remove(held)


def _bundle_id(runtime: Runtime, loaded: Model) -> int:
    """The row id of a loaded bundle."""
    sha256 = loaded.bundle.sha256
    if sha256 not in runtime.bundle_ids:
        runtime.bundle_ids[sha256] = db.transact(
            runtime.sessions, lambda session: batches.bundle_row(session, loaded.bundle).id
        )
    return runtime.bundle_ids[sha256]


def _pause(runtime: Runtime, seconds: float, stop: Stop) -> None:
    """Sleep, but not past a request to stop. It is meant, so it must not look like a hang."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stop.requested:
        runtime.heartbeat.progress()
        time.sleep(0.1)
