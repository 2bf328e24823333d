"""The claims that a worker holds, from the lease to the recorded outcomes. The next claim is decoded ahead.

The engine predicts what was decoded first, so a slow image keeps no other of its claim waiting; its claim stays open.
"""

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue

from dermq import db, errors
from dermq.queue import claims
from dermq.queue.claims import Claimant, Lease
from dermq.queue.outcomes import Outcome
from dermq.wakeups import Queue
from worker.classify.prediction import Decoding
from worker.classify.runtime import ClassifyRuntime
from worker.decoders import stored
from worker.decoders.pictures import Picture, View
from worker.process.backoff import Backoff
from worker.process.lease_renewal import LeaseRenewal
from worker.process.shutdown import StopRequest

log = logging.getLogger(__name__)


STEP_WAIT_SECONDS = 0.5
"""A decoded image waits at most this long until it is predicted, if others of its claim are slower."""
TAKE_SECONDS = 0.25
"""The least time between two attempts to claim when the last one found less than a full claim."""


@dataclass(eq=False)
class HeldClaim:
    """A claim whose images are being decoded and predicted."""

    lease: Lease
    left: int
    """How many images are not recorded yet."""
    decoding: dict[int, Decoding] = field(default_factory=dict)
    """The images that are not decoded yet, by id."""
    decoded: deque[Decoding] = field(default_factory=deque)
    """Decoded images that are not predicted yet, in the order in which decoders finished them."""
    waits_since: float = 0.0
    """When the first of ``decoded`` was put there, by a monotonic clock."""

    def is_due(self, step_images: int) -> bool:
        """Return whether the engine should predict now what is decoded."""
        if not self.decoded:
            return False
        whole = len(self.decoded) >= step_images or not self.decoding
        return whole or time.monotonic() - self.waits_since >= STEP_WAIT_SECONDS

    def take_step(self, step_images: int) -> list[Decoding]:
        """Return up to ``step_images`` decoded images, those first that were decoded first."""
        step = [self.decoded.popleft() for _ in range(min(step_images, len(self.decoded)))]
        self.waits_since = time.monotonic()
        return step


class HeldClaims:
    """The claims of one worker for one bundle: enough that the engine always has work, and those with slow images."""

    def __init__(
        self,
        runtime: ClassifyRuntime,
        claimant: Claimant,
        view: View,
        renewal: LeaseRenewal,
        stop: StopRequest,
    ) -> None:
        self._runtime = runtime
        self._claimant = claimant
        self._view = view
        self._renewal = renewal
        self._stop = stop
        self._held: list[HeldClaim] = []
        self._await_decoded: SimpleQueue[tuple[HeldClaim, int]] = SimpleQueue()
        """What decoders have finished: the claim and the image's id."""
        self._spent: dict[int, float] = {}
        """Seconds of decoding by lab, for which the labs are not charged yet."""
        self._take_at = 0.0
        self._last_alone = False
        """Whether the last claim was a suspect."""
        self._no_more = False
        """Whether nothing may be claimed before all is done that is held."""

    @property
    def any(self) -> bool:
        """Whether a claim is held."""
        return bool(self._held)

    def take(self) -> None:
        """Take the next claim if one is wanted now, and begin to decode its images. Commits.

        One claim is decoded while the engine predicts another. Undecoded images of a lab with slow images do not count,
        so that other labs' images are claimed meanwhile; a lab that has a claim full of them gets no more here.

        A suspect is claimed only when nothing else is held. Suspects and ordinary claims take turns.
        """
        if self._held and (self._no_more or time.monotonic() < self._take_at):
            return
        slow = self._runtime.decoders.list_slow_labs()
        most = self._runtime.settings.claim_images
        undecoded = Counter(image.lab_id for claim in self._held for image, _ in claim.decoding.values())
        held = sum(claim.left for claim in self._held) - sum(undecoded[lab] for lab in slow)
        if held > most:
            return
        full = {lab for lab in slow if undecoded[lab] >= most}
        lease = self._take(most, full)
        if lease is None:
            self._take_at = time.monotonic() + TAKE_SECONDS
            return
        self._no_more = lease.alone or self._last_alone
        self._last_alone = lease.alone
        self._hold(lease)
        if len(lease.images) == most:
            self._runtime.wakeups.send(Queue.CLASSIFY)  # a full claim: more may wait, and another worker may be idle
        else:
            self._take_at = time.monotonic() + TAKE_SECONDS

    def wait_for_step(self, step_images: int, seconds: float) -> tuple[HeldClaim, list[Decoding]] | None:
        """Return the images that the engine predicts next; None when none are decoded within ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            self._sort_decoded()
            due = [claim for claim in self._held if claim.is_due(step_images)]
            if due:
                claim = min(due, key=lambda claim: claim.waits_since)
                return claim, claim.take_step(step_images)
            try:
                self._note_decoded(*self._await_decoded.get(timeout=until - time.monotonic()))
            except (Empty, ValueError):  # the time is up
                return None

    def record(self, claim: HeldClaim, found: list[Outcome]) -> None:
        """Record the outcomes of a step, and forget the claim when it was the last one.

        Commits; raises LeaseLost, or Transient after too many failed attempts.
        """
        self._write(partial(db.transact, self._runtime.sessions, claims.record, claim.lease.token, found))
        claim.left -= len(found)
        if not claim.left:
            self.forget(claim)

    def forget(self, claim: HeldClaim) -> None:
        """Stop holding a claim that is recorded, given back or lost."""
        self._runtime.decoders.discard(job for _, job in claim.decoding.values())
        self._renewal.remove(claim.lease.token)
        self._held.remove(claim)

    def give_back(self, claim: HeldClaim, *, lost: bool = False) -> None:
        """Queue the claim's unrecorded images again, as suspects when it is ``lost``, and wake a worker. Commits."""
        self._runtime.decoders.discard(job for _, job in claim.decoding.values())
        self._write(partial(db.transact, self._runtime.sessions, claims.give_back, claim.lease.token, lost=lost))
        self.forget(claim)
        self._runtime.wakeups.send(Queue.CLASSIFY)

    def give_back_all(self) -> None:
        """Give back every claim, and charge the labs. When one cannot be given back, the others still are. Commits.

        When the watchdog ends this worker, the claims are given back as lost: the images may be the reason.
        """
        for claim in tuple(self._held):
            try:
                self.give_back(claim, lost=self._stop.by_watchdog)
            except errors.Transient as err:
                log.error("claim %s could not be given back, its lease will expire: %s", claim.lease.token, err)
        try:
            db.transact(self._runtime.sessions, claims.charge, self._gather_spent())
        except errors.Transient as err:
            log.warning("seconds of decoding could not be charged: %s", err)

    def note_progress(self) -> None:
        """Note progress for the lease renewal and for the heartbeat."""
        self._renewal.note_progress()
        self._runtime.heartbeat.note_progress()

    def _take(self, most: int, full: Collection[int]) -> Lease | None:
        """Take a suspect or an ordinary claim, whichever has its turn. Commits."""
        turns: list[Callable[[], Lease | None]] = [partial(self._take_ordinary, most, full)]
        if not self._held:
            turns.insert(
                1 if self._last_alone else 0,
                lambda: db.transact(self._runtime.sessions, claims.take_suspect, self._claimant),
            )
        return next((lease for take in turns if (lease := take()) is not None), None)

    def _take_ordinary(self, most: int, full: Collection[int]) -> Lease | None:
        lease = db.transact(
            self._runtime.sessions, claims.take, self._claimant, most, without=full, spent=self._gather_spent()
        )
        self._spent = {}
        return lease

    def _gather_spent(self) -> dict[int, float]:
        for lab_id, seconds in self._runtime.decoders.take_spent().items():
            self._spent[lab_id] = self._spent.get(lab_id, 0.0) + seconds
        return self._spent

    def _hold(self, lease: Lease) -> None:
        self._renewal.add(lease.token)
        self._runtime.heartbeat.note_progress()
        claim = HeldClaim(lease, len(lease.images))
        self._held.append(claim)  # before decoding starts, so that the claim is given back when that fails
        for image in lease.images:
            claim.decoding[image.id] = (
                image,
                stored.make_job(image, self._view, self._runtime.blobs, self._runtime.settings),
            )
        for image, job in claim.decoding.values():
            job.future.add_done_callback(partial(self._put_decoded, claim, image.id))
        self._runtime.decoders.submit([job for _, job in claim.decoding.values()])

    def _put_decoded(self, claim: HeldClaim, image_id: int, future: Future[Picture]) -> None:
        """Pass a decoded image, or one that cannot be decoded, on to the main loop; runs in a decoder's thread."""
        self._await_decoded.put((claim, image_id))

    def _sort_decoded(self) -> None:
        """Note every image that was decoded meanwhile, without waiting."""
        with contextlib.suppress(Empty):
            while True:
                self._note_decoded(*self._await_decoded.get_nowait())

    def _note_decoded(self, claim: HeldClaim, image_id: int) -> None:
        if not claim.decoded:
            claim.waits_since = time.monotonic()
        claim.decoded.append(claim.decoding.pop(image_id))

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
