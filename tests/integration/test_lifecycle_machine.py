"""The whole lifecycle: Hypothesis draws actions of labs, workers and the reaper; a model predicts their effects."""

import os
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dermq import archives, arrivals, batches, bundles, conservation, db, errors, labs
from dermq.lifecycle import ARCHIVE_MOVES, IMAGE_MOVES, OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Base, Batch, Claim, Image, Lab, Prediction, QueueRow
from dermq.principals import OPERATOR
from dermq.queue import archive_claims, claims, fairness, leases
from dermq.queue.archive_claims import ArchiveLease
from dermq.queue.claims import Claimant, ClaimedImage
from dermq.queue.outcomes import Failed
from dermq.settings import Settings
from tests import fakes, scenarios
from worker.intake import entries, unpack
from worker.reaper import Reaper

QUEUED, RUNNING, DONE, FAILED, CANCELLED = ImageState
NAMES = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=10)
"""Files of an upload: a few names, so that some come twice, with the same bytes or with others."""
ARCHIVES = ["a" * 64, "b" * 64]
EXAMPLES = {"sqlite": 80, "postgresql": 20} if os.environ.get("CI") == "true" else {"sqlite": 20, "postgresql": 5}
"""CI runs the same examples each time. At hand, each run draws fewer, but others."""
STEPS = 40


@dataclass
class Known:
    """The model of an image."""

    batch: uuid.UUID
    state: ImageState = QUEUED
    token: uuid.UUID | None = None
    suspect: bool = False
    losses: int = 0


@dataclass
class Sent:
    """The model of an archive."""

    batch: uuid.UUID
    state: ArchiveState = ArchiveState.RECEIVING
    sha256: str | None = None
    token: uuid.UUID | None = None
    losses: int = 0
    next_entry: int = 0


@dataclass
class Submitted:
    """The model of a batch."""

    lab: int
    sealed: bool = False
    cancelled: bool = False
    deleted: bool = False
    idle: bool = False


@dataclass
class File:
    """A fake of an incoming file."""

    sha256: str
    bytes: int = 1
    kept_at: float | None = None


@dataclass
class Held:
    """A claim as its worker remembers it; the claim itself may have been lost since."""

    token: uuid.UUID
    images: list[int] = field(default_factory=list)
    task: ArchiveLease | None = None
    alone: bool = False


class Lifecycle(RuleBasedStateMachine):
    """The rules are the actions. After each, ``everything_holds`` compares the database with the model."""

    def __init__(self, sessions: db.Sessions, bundle: bundles.Bundle, settings: Settings) -> None:
        super().__init__()
        self.sessions = sessions
        self.shipped = bundle
        self.settings = settings.model_copy(update={"max_images_per_batch": 25})
        self.blobs = cast(Any, scenarios.Names())
        self.runtime = fakes.runtime(self.settings, sessions, self.blobs, bundle, fakes.Engine())
        self.reaper = Reaper(self.settings, sessions, self.blobs, cast(Any, fakes.Wakeups()))
        self.images: dict[int, Known] = {}
        self.archives: dict[uuid.UUID, Sent] = {}
        self.batches: dict[uuid.UUID, Submitted] = {}
        self.held: list[Held] = []
        self.live: set[uuid.UUID] = set()
        self.run_out: set[uuid.UUID] = set()
        self.before: dict[str, Any] = {}
        self.served = 0.0
        self.tags: dict[int, float] = {}
        self.alarms = scenarios.Alarms()
        db.transact(sessions, _empty)
        self.claimant = Claimant("w", db.transact(sessions, batches.ensure_bundle_row, bundle).id, 600.0)

    def do(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return db.transact(self.sessions, work, *args, **kwargs)

    # Labs.

    @initialize(weights=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=2, max_size=3))
    def labs_come(self, weights: list[float]) -> None:
        self.labs = [self.do(labs.add, f"lab {at}", weight=weight) for at, weight in enumerate(weights)]
        self.tags = {lab.id: 0.0 for lab in self.labs}
        for lab in self.labs[1:]:
            self.submit_for(lab, urgent=False, images=9)

    @precondition(lambda self: len(self.batches) < 4)
    @rule(urgent=st.booleans(), images=st.integers(0, 12), draw=st.data())
    def submit(self, urgent: bool, images: int, draw: st.DataObject) -> None:
        self.submit_for(draw.draw(st.sampled_from(self.labs)), urgent=urgent, images=images)

    def submit_for(self, lab: Lab, *, urgent: bool, images: int) -> None:
        batch_id = fakes.create(self.sessions, lab, self.shipped, urgent=urgent).id
        self.batches[batch_id] = Submitted(lab.id)
        self.receive(batch_id, [(n, False) for n in range(images)])
        self.find_new_images(batch_id)

    def receive(self, batch_id: uuid.UUID, names: list[tuple[int, bool]]) -> None:
        found = _arrivals(names)
        arrivals.keep(self.sessions, self.blobs, batch_id, found, self.settings)
        self.do(arrivals.receive, batch_id, found, self.settings)

    @precondition(lambda self: self.batches)
    @rule(names=NAMES, draw=st.data())
    def add(self, names: list[tuple[int, bool]], draw: st.DataObject) -> None:
        batch_id, batch = self.a_batch(draw)
        refusal = _closed(batch) or ("batch_sealed" if batch.sealed else None)
        with self.expecting(refusal):
            self.receive(batch_id, names)
            batch.idle = False
        self.find_new_images(batch_id)

    @precondition(lambda self: self.batches)
    @rule(draw=st.data(), sha256=st.sampled_from([None, *ARCHIVES]))
    def begin_archive(self, draw: st.DataObject, sha256: str | None) -> None:
        """Receive an archive; it is complete if it has a hash."""
        batch_id, batch = self.a_batch(draw)
        archive_id = batches.make_id()
        with self.expecting(_closed(batch) or ("batch_sealed" if batch.sealed else None)):
            self.do(archives.begin, batch_id, archive_id)
            self.archives[archive_id] = Sent(batch_id)
            batch.idle = False
        if sha256 and archive_id in self.archives:
            self.store(archive_id, sha256)

    @precondition(lambda self: self.archives)
    @rule(sha256=st.sampled_from(ARCHIVES), draw=st.data())
    def store_archive(self, sha256: str, draw: st.DataObject) -> None:
        self.store(draw.draw(st.sampled_from(sorted(self.archives))), sha256)

    def store(self, archive_id: uuid.UUID, sha256: str) -> None:
        archive = self.archives[archive_id]
        batch = self.batches[archive.batch]
        again = archive.sha256 == sha256 and not batch.deleted  # the client lost the first response
        same = [
            other
            for other in self.archives.values()
            if (other.batch, other.sha256) == (archive.batch, sha256)
            and other.state in (ArchiveState.STORED, ArchiveState.UNPACKING, ArchiveState.DONE)
        ]
        open_still = archive.state is ArchiveState.RECEIVING and not batch.cancelled
        with self.expecting(None if again or open_still else "no_batch" if batch.deleted else "archive_closed"):
            file = cast(Any, File(sha256))
            archives.keep(self.sessions, self.blobs, archive_id, file)
            _, is_new = self.do(archives.store, archive_id, file)
            assert is_new == (again or not same)
            if again:
                return
            batch.idle = False
            if same:
                del self.archives[archive_id]
            else:
                archive.state, archive.sha256 = ArchiveState.STORED, sha256

    @precondition(lambda self: self.archives)
    @rule(draw=st.data())
    def abandon_archive(self, draw: st.DataObject) -> None:
        archive_id, archive = draw.draw(st.sampled_from(sorted(self.archives.items())))
        self.do(archives.abandon, archive_id, errors.Conflict("upload_abandoned", "gone"))
        if archive.state is ArchiveState.RECEIVING:
            archive.state = ArchiveState.FAILED

    @precondition(lambda self: self.batches)
    @rule(draw=st.data())
    def seal(self, draw: st.DataObject) -> None:
        batch_id, batch = self.a_batch(draw)
        receiving = self.is_receiving(batch_id) and not batch.sealed
        with self.expecting(_closed(batch) or ("archive_being_received" if receiving else None)):
            self.do(batches.seal, batch_id, by=OPERATOR)
            batch.sealed = True

    @precondition(lambda self: self.batches)
    @rule(draw=st.data(), is_swept=st.booleans())
    def cancel(self, draw: st.DataObject, is_swept: bool) -> None:
        """Run both transactions of a cancel, or only the first, as when the program is killed between them."""
        batch_id, batch = self.a_batch(draw)
        finished = not batch.cancelled and self.is_settled(batch_id)
        with self.expecting("no_batch" if batch.deleted else "batch_finished" if finished else None):
            self.do(batches.cancel, batch_id, by=OPERATOR)
            batch.cancelled = batch.sealed = True
            if is_swept:
                assert self.do(batches.sweep, batch_id) == self.sweep(batch_id)

    @precondition(lambda self: any(image.state is FAILED for image in self.images.values()))
    @rule(draw=st.data(), of_failed=st.booleans())
    def retry(self, draw: st.DataObject, of_failed: bool) -> None:
        batch_id, batch = self.a_batch(draw)
        if of_failed:
            batch_id = next(image.batch for image in self.images.values() if image.state is FAILED)
            batch = self.batches[batch_id]
        failed = [image for image in self.of(batch_id) if image.state is FAILED]
        with self.expecting(_closed(batch) or (None if failed else "nothing_failed")):
            assert self.do(batches.retry, batch_id, by=OPERATOR) == len(failed)
            for image in failed:
                image.state, image.suspect, image.losses = QUEUED, False, 0

    @precondition(lambda self: self.batches)
    @rule(draw=st.data(), is_purged=st.booleans())
    def delete(self, draw: st.DataObject, is_purged: bool) -> None:
        """Mark a batch as deleted; the program may be killed before the rows are removed."""
        batch_id, batch = self.a_batch(draw)
        self.do(batches.mark_deleted, batch_id, by=OPERATOR)
        batch.deleted = batch.cancelled = batch.sealed = True
        if is_purged:
            while self.do(batches.purge_page, batch_id):
                pass
            self.purge(batch_id)

    # Workers.

    @precondition(lambda self: self.waiting())
    @rule(most=st.integers(1, 20))
    def take(self, most: int) -> None:
        waiting = [image for image in self.waiting() if not image.suspect]
        served, tags = self.served, dict(self.tags)
        lease = self.do(claims.take, self.claimant, most)
        assert (0 if lease is None else len(lease.images)) == min(most, len(waiting))
        if lease is None:
            return
        self.hold(lease)
        taken = Counter(self.batches[image.batch_id].lab for image in lease.images)
        self.look_at_order(*db.read(self.sessions, _order))
        for lab in self.labs:
            start = max(tags[lab.id], served)  # an idle lab earns no credit
            expected = start + taken[lab.id] / lab.weight if taken[lab.id] else tags[lab.id]
            assert self.tags[lab.id] == pytest.approx(expected)
            if taken[lab.id]:  # the last turn was a quantum at most, and ``served`` is not behind its start
                assert self.served >= self.tags[lab.id] - max(1, most // fairness.QUANTA) / lab.weight - 1e-6

    @precondition(lambda self: any(image.suspect for image in self.images.values()))
    @rule()
    def take_suspect(self) -> None:
        suspects = [image for image in self.waiting() if image.suspect]
        lease = self.do(claims.take_suspect, self.claimant)
        assert (lease is not None) == bool(suspects)
        if lease is not None:
            assert lease.alone and len(lease.images) == 1
            self.hold(lease)

    @precondition(lambda self: any(held.images for held in self.held))
    @rule(draw=st.data(), part=st.floats(0, 1), fails=st.integers(0, 3))
    def record(self, draw: st.DataObject, part: float, fails: int) -> None:
        """Record some outcomes of a claim, the first few as failures. The claim may have been lost before."""
        held = draw.draw(st.sampled_from([held for held in self.held if held.images]))
        ids = held.images[: round(part * len(held.images))]
        found: list[Any] = scenarios.predictions(
            [ClaimedImage(each, uuid.UUID(int=0), "", 0) for each in ids], self.claimant
        )
        found[:fails] = [Failed(each, "damaged", "damaged") for each in ids[:fails]]
        owned = [each for each in ids if each in self.images and self.images[each].token == held.token]
        if held.token not in self.live:
            with pytest.raises(leases.LeaseLost):
                self.do(claims.record, held.token, found)
            return
        assert self.do(claims.record, held.token, found) == len(owned)
        self.recorded(held.token, owned, failed=ids[:fails])

    @precondition(lambda self: self.waiting())
    @rule(most=st.integers(1, 40), fails=st.integers(0, 3), are_sealed=st.booleans())
    def serve(self, most: int, fails: int, are_sealed: bool) -> None:
        """Take a claim and record all of it, as a worker without any failure; then the batches may be sealed."""
        if lease := self.do(claims.take, self.claimant, most):
            self.hold(lease)
            ids = [image.id for image in lease.images]
            failures = [Failed(each, "damaged", "damaged") for each in ids[:fails]]
            found = failures + scenarios.predictions(lease.images[fails:], self.claimant)
            assert self.do(claims.record, lease.token, found) == len(ids)
            self.recorded(lease.token, ids, failed=ids[:fails])
        for batch_id, batch in self.batches.items():
            if are_sealed and not batch.cancelled and not self.is_receiving(batch_id):
                self.do(batches.seal, batch_id, by=OPERATOR)
                batch.sealed = True

    @precondition(lambda self: self.waiting())
    @rule(times=st.integers(1, 5))
    def die(self, times: int) -> None:
        """Lose one claim after another as workers die, until one image is claimed alone and its worker dies as well."""
        for _ in range(times):
            if (lease := scenarios.take_next(self.sessions, self.claimant, 3)) is not None:
                self.hold(lease)
                self.do(claims.give_back, lease.token, lost=True)
                self.return_all(lease.token, lost=True)

    @precondition(lambda self: self.held)
    @rule(draw=st.data())
    def renew(self, draw: st.DataObject) -> None:
        held = draw.draw(st.sampled_from(self.held))
        assert self.do(leases.renew, held.token, 600.0) == (held.token in self.live)
        self.run_out.discard(held.token)

    @precondition(lambda self: self.held)
    @rule(draw=st.data(), lost=st.booleans())
    def give_back(self, draw: st.DataObject, lost: bool) -> None:
        held = draw.draw(st.sampled_from(self.held))
        if held.task is not None:
            lost = True  # ``end_archive`` gives an archive back
        self.do(claims.give_back, held.token, lost=lost)
        self.return_all(held.token, lost=lost)

    @precondition(lambda self: self.held)
    @rule(draw=st.data())
    def run_out_of_lease(self, draw: st.DataObject) -> None:
        """Let a lease expire. Before the reaper's round, its worker may still record."""
        held = draw.draw(st.sampled_from(self.held))
        past = sa.update(Claim).where(Claim.token == held.token).values(expires_at=db.now(-1))
        self.do(lambda session: session.execute(past))
        self.run_out.add(held.token)

    # Unpackers.

    @precondition(lambda self: any(archive.sha256 for archive in self.archives.values()))
    @rule(deaths=st.integers(0, 3))
    def claim_archive(self, deaths: int) -> None:
        """Let several unpackers die while they hold an archive, before the next one continues."""
        for _ in range(deaths):
            if task := self.claim_an_archive():
                self.do(claims.give_back, task.token, lost=True)
                self.return_all(task.token, lost=True)
        self.claim_an_archive()

    def claim_an_archive(self) -> ArchiveLease | None:
        stored = [each for each, archive in self.archives.items() if self.is_stored(archive)]
        task: ArchiveLease | None = self.do(archive_claims.take, self.runtime.name, self.runtime.settings.lease_seconds)
        assert (task is not None) == bool(stored)
        if task is not None:
            archive = self.archives[task.archive_id]
            assert task.archive_id in stored and task.next_entry == archive.next_entry
            archive.state, archive.token = ArchiveState.UNPACKING, task.token
            self.live.add(task.token)
            self.held.append(Held(task.token, task=task))
        return task

    @precondition(lambda self: any(held.task for held in self.held))
    @rule(draw=st.data(), names=NAMES)
    def record_page(self, draw: st.DataObject, names: list[tuple[int, bool]]) -> None:
        task = self.a_task(draw)
        archive = self.archives.get(task.archive_id)
        next_entry = (archive.next_entry if archive else 0) + len(names)
        page = entries.EntryPage(next_entry, entries=len(names), arrived=_arrivals(names))
        if not self.owns(task):
            with pytest.raises(leases.LeaseLost):
                self.do(unpack._record, self.runtime, task, page)
            return
        assert archive is not None
        batch = self.batches[archive.batch]
        with self.expecting(_closed(batch) if names else None):
            self.do(unpack._record, self.runtime, task, page)
            if names:
                archive.next_entry, archive.losses, batch.idle = next_entry, 0, False
        self.find_new_images(task.batch_id)

    @precondition(lambda self: any(held.task for held in self.held))
    @rule(draw=st.data(), whole=st.booleans(), damaged=st.booleans())
    def end_archive(self, draw: st.DataObject, whole: bool, damaged: bool) -> None:
        task = self.a_task(draw)
        error = errors.Permanent("damaged_archive", "damaged") if whole and damaged else None
        owned = self.owns(task)
        self.do(archive_claims.end, task, unpacked=whole, seconds=archive_claims.SLICE_SECONDS, error=error)
        self.live.discard(task.token)
        if owned:
            ended = ArchiveState.FAILED if damaged else ArchiveState.DONE
            archive = self.archives[task.archive_id]
            archive.state, archive.token = ended if whole else ArchiveState.STORED, None

    # The reaper.

    @rule(draw=st.data(), is_idle=st.booleans())
    def reap(self, draw: st.DataObject, is_idle: bool) -> None:
        """Run a round of the reaper, possibly long after the last upload to a batch."""
        if is_idle and self.batches:
            batch_id, batch = self.a_batch(draw)
            past = (
                sa.update(Batch).where(Batch.id == batch_id).values(touched_at=datetime.now(UTC) - timedelta(hours=5))
            )
            self.do(lambda session: session.execute(past))
            batch.idle = True
        self.reaper.run_round()
        for token in self.run_out:
            self.return_all(token, lost=True)
        self.run_out.clear()
        for batch_id, batch in list(self.batches.items()):
            if batch.cancelled:
                self.sweep(batch_id)
            if batch.deleted:
                self.purge(batch_id)
            elif batch.idle and not self.is_receiving(batch_id):
                batch.sealed = True

    # The invariants, which must hold after every action.

    @invariant()
    def everything_holds(self) -> None:
        rows = db.read(self.sessions, _rows)
        assert {each: tuple(columns) for each, *columns in rows["images"]} == {
            each: (image.state, image.token, image.suspect, image.losses) for each, image in self.images.items()
        }
        assert {each: tuple(columns) for each, *columns in rows["archives"]} == {
            each: (archive.state, archive.token, archive.losses, archive.next_entry)
            for each, archive in self.archives.items()
        }
        assert set(rows["claims"]) == self.live
        assert Counter(rows["predicted"]) == {each: 1 for each, image in self.images.items() if image.state is DONE}
        assert {batch.id for batch in rows["batches"]} == self.batches.keys()
        for batch in rows["batches"]:
            self.look_at_batch(batch)
        self.look_at_moves("images", rows["images"], IMAGE_MOVES)
        self.look_at_moves("archives", rows["archives"], ARCHIVE_MOVES)
        self.look_at_order(*rows["order"])
        assert not self.alarms.heard, "what the reaper cannot do, and what its conservation check finds"

    def look_at_batch(self, batch: Any) -> None:
        known = self.batches[batch.id]
        assert (batch.sealed_at is not None, batch.cancelled_at is not None) == (known.sealed, known.cancelled)
        if batch.finished_at is not None:
            assert self.is_settled(batch.id)
        elif self.is_settled(batch.id):
            assert known.cancelled, "only the sweep of a cancelled batch may still have to settle it"
        of_batch = Counter(image.state.value for image in self.of(batch.id))
        assert all(getattr(batch, state.value) == of_batch[state.value] for state in ImageState)
        assert batch.received == of_batch.total()
        version, shown_before = self.before.get(f"batch {batch.id}", (-1, None))
        shown = [getattr(batch, name) for name in _SHOWN]
        if batch.version == version:
            assert shown == shown_before, "who polls with an ETag must hear of it"
            return
        assert batch.version > version
        self.before[f"batch {batch.id}"] = (batch.version, shown)

    def look_at_moves(self, name: str, rows: list[Any], moves: Mapping[Any, Collection[Any]]) -> None:
        """Check that states changed only by a few allowed moves, and that only a retry leaves a final state."""
        was = self.before.get(name, {})
        for row in rows:
            before = was.get(row.id, row.state)
            assert row.state is before or row.state in _reachable(moves, before)
        self.before[name] = {row.id: row.state for row in rows}

    def look_at_order(self, served: float, tags: dict[int, float]) -> None:
        assert served >= self.served and all(tags[lab] >= tag for lab, tag in self.tags.items())
        self.served, self.tags = served, tags

    def teardown(self) -> None:
        """Check that a worker and the reaper can finish all that is left."""
        try:
            if hypothesis.currently_in_test_context():
                self.drain()
        finally:
            self.alarms.close()

    def drain(self) -> None:
        for held in self.held:
            if held.task:
                self.do(archive_claims.end, held.task, unpacked=False, seconds=archive_claims.SLICE_SECONDS)
            self.do(claims.give_back, held.token)
        for archive_id in self.archives:
            self.do(archives.abandon, archive_id, errors.Conflict("upload_abandoned", "gone"))
        while task := self.do(archive_claims.take, self.runtime.name, self.runtime.settings.lease_seconds):
            self.do(archive_claims.end, task, unpacked=True, seconds=archive_claims.SLICE_SECONDS)
        for batch_id in self.batches:
            with suppress(errors.Conflict, errors.NotFound):
                self.do(batches.seal, batch_id, by=OPERATOR)
        self.reaper.run_round()
        while lease := self.do(claims.take_suspect, self.claimant) or self.do(claims.take, self.claimant, 7):
            self.do(claims.record, lease.token, scenarios.predictions(lease.images, self.claimant))
        rows = db.read(self.sessions, _rows)
        assert not rows["claims"]
        assert all(image.state in (DONE, FAILED, CANCELLED) for image in rows["images"])
        assert Counter(rows["predicted"]) == {image.id: 1 for image in rows["images"] if image.state is DONE}
        for batch in rows["batches"]:
            assert batch.finished_at is not None
            assert batch.received == batch.done + batch.failed + batch.cancelled
            assert not conservation.audit(self.sessions, self.blobs, batch.id).findings

    # The model.

    def a_batch(self, draw: st.DataObject) -> tuple[uuid.UUID, Submitted]:
        return draw.draw(st.sampled_from(sorted(self.batches.items(), key=lambda each: each[0])))

    def a_task(self, draw: st.DataObject) -> ArchiveLease:
        task = draw.draw(st.sampled_from([held for held in self.held if held.task])).task
        assert task is not None
        return task

    def of(self, batch_id: uuid.UUID) -> list[Known]:
        return [image for image in self.images.values() if image.batch == batch_id]

    def waiting(self) -> list[Known]:
        return [
            image for image in self.images.values() if image.state is QUEUED and not self.batches[image.batch].cancelled
        ]

    def is_receiving(self, batch_id: uuid.UUID) -> bool:
        states = (archive.state for archive in self.archives.values() if archive.batch == batch_id)
        return ArchiveState.RECEIVING in states

    def is_stored(self, archive: Sent) -> bool:
        return archive.state is ArchiveState.STORED and not self.batches[archive.batch].cancelled

    def is_settled(self, batch_id: uuid.UUID) -> bool:
        working = any(image.state in (QUEUED, RUNNING) for image in self.of(batch_id))
        unpacking = any(a.batch == batch_id and a.state in OPEN_ARCHIVE for a in self.archives.values())
        return self.batches[batch_id].sealed and not working and not unpacking

    def owns(self, task: ArchiveLease) -> bool:
        archive = self.archives.get(task.archive_id)
        return task.token in self.live and archive is not None and archive.token == task.token

    def hold(self, lease: claims.Lease) -> None:
        self.live.add(lease.token)
        self.held.append(Held(lease.token, [image.id for image in lease.images], alone=lease.alone))
        for each in lease.images:
            image = self.images[each.id]
            assert image.state is QUEUED and not self.batches[image.batch].cancelled
            assert image.suspect == lease.alone
            image.state, image.token = RUNNING, lease.token

    def recorded(self, token: uuid.UUID, ids: list[int], failed: list[int]) -> None:
        for each in ids:
            image = self.images[each]
            image.state, image.token, image.suspect = FAILED if each in failed else DONE, None, False
        if not any(image.token == token for image in self.images.values()):
            self.live.discard(token)

    def return_all(self, token: uuid.UUID, *, lost: bool) -> None:
        if token not in self.live:
            return
        self.live.discard(token)
        for image in [image for image in self.images.values() if image.token == token]:
            image.token = None
            if lost and image.suspect and image.losses == leases.MOST_LOSSES - 1:
                image.state, image.suspect = FAILED, False
                continue
            image.losses += lost and image.suspect
            image.state = CANCELLED if self.batches[image.batch].cancelled else QUEUED
            image.suspect = (lost or image.suspect) and image.state is QUEUED
        for archive in [archive for archive in self.archives.values() if archive.token == token]:
            archive.losses += 1
            archive.token = None
            archive.state = ArchiveState.FAILED if archive.losses == leases.MOST_LOSSES else ArchiveState.STORED

    def sweep(self, batch_id: uuid.UUID) -> bool:
        waiting = [image for image in self.of(batch_id) if image.state is QUEUED]
        unpacking = [a for a in self.archives.values() if a.batch == batch_id and a.state in OPEN_ARCHIVE]
        for image in waiting:
            image.state, image.suspect, image.losses = CANCELLED, False, 0
        for archive in unpacking:
            archive.state, archive.token = ArchiveState.CANCELLED, None
        return bool(waiting or unpacking)

    def purge(self, batch_id: uuid.UUID) -> None:
        del self.batches[batch_id]
        self.images = {each: image for each, image in self.images.items() if image.batch != batch_id}
        self.archives = {each: archive for each, archive in self.archives.items() if archive.batch != batch_id}

    def find_new_images(self, batch_id: uuid.UUID) -> None:
        ids = sa.select(Image.id).where(Image.batch_id == batch_id).order_by(Image.id)
        for each in db.read(self.sessions, lambda session: session.scalars(ids).all()):
            self.images.setdefault(each, Known(batch_id))

    def expecting(self, code: str | None) -> "_Expecting":
        return _Expecting(code)


class _Expecting:
    """Expect that the block is refused with this code, or is not refused."""

    def __init__(self, code: str | None) -> None:
        self.code = code

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, err: BaseException | None, at: object) -> bool:
        if isinstance(err, errors.Conflict | errors.NotFound):
            assert err.code == self.code
            return True
        assert err is not None or self.code is None
        return False


_SHOWN = (
    *("received", "queued", "running", "done", "failed", "cancelled", "refused", "archives_open"),
    *("sealed_at", "cancelled_at", "finished_at", "deleted_at"),
)


def _reachable(moves: Mapping[Any, Collection[Any]], source: Any) -> set[Any]:
    """Return the states that a row may have after some moves, if it is not deleted."""
    found: set[Any] = set()
    left = {source}
    while left:
        left = {target for state in left for target in moves[state] if target is not None} - found
        found |= left
    return found


def _closed(batch: Submitted) -> str | None:
    return "no_batch" if batch.deleted else "batch_cancelled" if batch.cancelled else None


def _arrivals(names: list[tuple[int, bool]]) -> list[arrivals.Arrival]:
    return [arrivals.Arrival(f"{name}.jpg", cast(Any, File(f"{name}{other}"))) for name, other in names]


def _never_sync(connection: Any, record: Any) -> None:
    """Turn off fsync, which is slow and only protects against a loss of power."""
    connection.execute("PRAGMA synchronous=OFF")


def _empty(session: Any) -> None:
    for table in reversed(Base.metadata.sorted_tables):
        if table.name not in ("queue", "bundle"):
            session.execute(table.delete())
    session.execute(sa.update(QueueRow).values(served=0.0))


def _rows(session: Any) -> dict[str, Any]:
    return {
        "images": session.execute(
            sa.select(Image.id, Image.state, Image.claim_token, Image.suspect, Image.solo_losses)
        ).all(),
        "archives": session.execute(
            sa.select(Archive.id, Archive.state, Archive.claim_token, Archive.losses, Archive.next_entry)
        ).all(),
        "batches": session.execute(sa.select(*Batch.__table__.columns)).all(),
        "claims": session.scalars(sa.select(Claim.token)).all(),
        "predicted": session.scalars(sa.select(Prediction.image_id)).all(),
        "order": _order(session),
    }


def _order(session: Any) -> tuple[float, dict[int, float]]:
    return session.scalars(sa.select(QueueRow.served)).one(), dict(session.execute(sa.select(Lab.id, Lab.tag)).all())


@pytest.mark.timeout(1800)  # it never waits, so only the machine's speed decides
def test_the_database_does_what_the_model_says(
    sessions: db.Sessions, bundle: bundles.Bundle, settings: Settings
) -> None:
    if sessions.engine.dialect.name == "sqlite":
        sa.event.listen(sessions.engine, "connect", _never_sync)
    run_state_machine_as_test(
        lambda: Lifecycle(sessions, bundle, settings),  # type: ignore[arg-type] # any callable will do
        settings=hypothesis.settings(
            max_examples=EXAMPLES[sessions.engine.dialect.name],
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            phases=[hypothesis.Phase.generate],
            report_multiple_bugs=False,
        ),
    )
