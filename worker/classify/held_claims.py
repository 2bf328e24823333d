"""The claims that a worker holds, from the lease to the recorded outcomes. The next claim is decoded ahead."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.queue import claims
from dermq.queue.claims import Claimant, Lease
from dermq.queue.outcomes import Outcome
from dermq.wakeups import Queue
from worker.classify.prediction import Decoding
from worker.classify.runtime import ClassifyRuntime
from worker.decoders.pool import Decoder, View
from worker.process.backoff import Backoff
from worker.process.lease_renewal import LeaseRenewal
from worker.process.shutdown import StopRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldClaim:
    """A claim whose images are being decoded."""

    lease: Lease
    decoding: list[Decoding] = field(default_factory=list)

    def split_steps(self, images: int) -> Iterator[Sequence[Decoding]]:
        """Yield the images in order, in steps of at most ``images``."""
        for at in range(0, len(self.decoding), images):
            yield self.decoding[at : at + images]


class HeldClaims:
    """The claims of one worker for one bundle, oldest first: at most one being predicted and one being decoded."""

    def __init__(
        self,
        runtime: ClassifyRuntime,
        claimant: Claimant,
        view: View,
        decoder: Decoder,
        renewal: LeaseRenewal,
        stop: StopRequest,
    ) -> None:
        self._runtime = runtime
        self._claimant = claimant
        self._view = view
        self._decoder = decoder
        self._renewal = renewal
        self._stop = stop
        self._held: list[HeldClaim] = []

    def find_first(self) -> HeldClaim | None:
        """Return the claim that the engine predicts next, or None when no claim is held."""
        return self._held[0] if self._held else None

    def take(self, *, suspects_first: bool = True) -> None:
        """Take the next claim, if there is one, and begin to decode its images. Commits.

        A suspect is claimed only when nothing else is held. ``suspects_first`` lets the caller alternate between
        suspects and ordinary claims.
        """
        most = self._runtime.settings.claim_images
        turns: list[Callable[[Session, Claimant], Lease | None]] = [partial(claims.take, most=most)]
        if not self._held:
            turns.insert(0 if suspects_first else 1, claims.take_suspect)
        leases = (db.transact(self._runtime.sessions, take, self._claimant) for take in turns)
        lease = next((lease for lease in leases if lease is not None), None)
        if lease is None:
            return
        self._hold(lease)
        if len(lease.images) == most:
            self._runtime.wakeups.send(Queue.CLASSIFY)  # a full claim: more may wait, and another worker may be idle

    def record(self, claim: HeldClaim, found: list[Outcome]) -> None:
        """Record the outcomes of a step. Commits; raises LeaseLost, or Transient after too many failed attempts."""
        self._write(partial(db.transact, self._runtime.sessions, claims.record, claim.lease.token, found))

    def forget(self, claim: HeldClaim) -> None:
        """Stop holding a claim that is recorded, given back or lost."""
        self._renewal.remove(claim.lease.token)
        self._held.remove(claim)

    def give_back(self, claim: HeldClaim, *, lost: bool = False) -> None:
        """Queue the claim's unrecorded images again, as suspects when it is ``lost``, and wake a worker. Commits."""
        for _, future in claim.decoding:
            future.cancel()
        self._write(partial(db.transact, self._runtime.sessions, claims.give_back, claim.lease.token, lost=lost))
        self.forget(claim)
        self._runtime.wakeups.send(Queue.CLASSIFY)

    def give_back_all(self) -> None:
        """Give back every claim. When one cannot be given back, the others still are. Commits."""
        for claim in tuple(self._held):
            try:
                self.give_back(claim)
            except errors.Transient as err:
                log.error("claim %s could not be given back, its lease will expire: %s", claim.lease.token, err)

    def note_progress(self) -> None:
        """Note progress for the lease renewal and for the heartbeat."""
        self._renewal.note_progress()
        self._runtime.heartbeat.note_progress()

    def _hold(self, lease: Lease) -> None:
        self._renewal.add(lease.token)
        self._runtime.heartbeat.note_progress()
        claim = HeldClaim(lease)
        self._held.append(claim)  # before decoding starts, so that the claim is given back when that fails
        for image in lease.images:
            claim.decoding.append((image, self._decoder.start(image, self._view)))

    def _write(self, write: Callable[[], object]) -> None:
        """Call ``write``, and retry for the length of a lease while the database is unreachable, so no work is lost."""
        backoff = Backoff(self._runtime.heartbeat, self._stop)
        until = time.monotonic() + self._runtime.settings.lease_seconds
        while True:
            try:
                write()
                return
            except errors.Transient as err:
                if time.monotonic() > until or self._stop.requested:
                    raise
                log.warning("writing again in %.0f s: %s", backoff.seconds, err)
                self.note_progress()  # the wait is intended: the lease must be renewed when the database is back
                backoff.wait()
