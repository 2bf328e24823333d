"""Scenarios of concurrent work on the queue. They return figures, which the tests and ``tests.chaos`` check.

Each scenario needs sessions on a migrated database without waiting work, and leaves no waiting work if possible.
"""

import contextlib
import logging
import random
import statistics
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import batches, bundles, conservation, db, errors, labs, transitions
from dermq.lifecycle import ImageState
from dermq.models import Batch, Claim, Lab
from dermq.principals import OPERATOR
from dermq.queue import claims, fairness
from dermq.queue.claims import Claimant, ClaimedImage, Lease
from dermq.queue.leases import LeaseLost
from dermq.queue.outcomes import Failed, Outcome, Provenance, make_prediction
from dermq.settings import Settings
from tests import fakes
from worker.reaper import Reaper

_STORM_SECONDS = 60.0
"""The time limit in which every kind of action must occur in a storm."""
_UNIFORM = np.full(7, 1 / 7, np.float32)


class Names:
    """A blob store with names but without bytes. At first, each batch has the blob of ``fakes.fill``."""

    def __init__(self) -> None:
        self.names: dict[uuid.UUID, set[str]] = defaultdict(lambda: {"0" * 64})

    def is_begun(self) -> bool:
        return True

    def keep(self, batch: uuid.UUID, files: Iterable[Any]) -> None:
        for file in files:
            self.names[batch].add(file.sha256)
            file.kept_at = time.time()

    def list(self, batch: uuid.UUID, **ignored: Any) -> list[str]:
        return sorted(self.names[batch])

    def delete(self, batch: uuid.UUID, name: str, **ignored: Any) -> None:
        self.names[batch] -= {name}

    def delete_batch(self, batch: uuid.UUID) -> None:
        self.names[batch].clear()

    def list_batches(self, **ignored: Any) -> Sequence[uuid.UUID]:
        return []

    def delete_stale_incoming(self, **ignored: Any) -> int:
        return 0

    def probe(self) -> None:
        pass


class Alarms(logging.Handler):
    """Collects the errors that programs log, for example the reaper's failed duties."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []
        logging.getLogger("worker").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage() + (f": {record.exc_info[1]!r}" if record.exc_info else ""))

    def close(self) -> None:
        logging.getLogger("worker").removeHandler(self)
        super().close()


def predictions(images: Iterable[ClaimedImage], claimant: Claimant) -> list[Outcome]:
    """Return a prediction of seven equal probabilities for each image."""
    provenance = Provenance(claimant.bundle_id, "fake", claimant.worker, 0.0)
    return [make_prediction(image.id, _UNIFORM, -1.0, 1.0, provenance, (600, 450)) for image in images]


def claimant(sessions: db.Sessions, bundle: bundles.Bundle, name: str = "w") -> Claimant:
    """Return a claimant of a bundle whose leases are so long that they do not expire in a test."""
    return Claimant(name, db.transact(sessions, batches.ensure_bundle_row, bundle).id, lease_seconds=600)


def submit(
    sessions: db.Sessions, bundle: bundles.Bundle, name: str, images: int, *, weight: float = 1.0
) -> tuple[Lab, Batch]:
    """Create a lab with a batch of ``waiting`` rows."""
    lab = db.transact(sessions, labs.add, f"{name} {uuid.uuid4().hex[:8]}", weight=weight)
    batch = fakes.create(sessions, lab, bundle, name=name)
    fill(sessions, [batch], images)
    return lab, batch


def fill(sessions: db.Sessions, found: Sequence[Batch], images: int) -> None:
    """Queue rows without blobs in each batch, by statements in the database: 100,000 rows take seconds."""
    numbers = (
        "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < :images)"
        if sessions.engine.dialect.name == "sqlite"
        else "WITH s(i) AS (SELECT generate_series(1, :images))"
    )
    rows = sa.text(
        f"{numbers} INSERT INTO image"
        " (batch_id, position, name, sha256, bytes, state, suspect, solo_losses)"
        " SELECT :batch_id, :received + i, (:received + i) || '.jpg', :sha256, 1, 'queued', false, 0 FROM s"
    ).bindparams(sa.bindparam("batch_id", type_=sa.Uuid()), sa.bindparam("received", type_=sa.Integer()))

    def work(session: Session, batch_id: uuid.UUID) -> None:
        batch = batches.lock(session, batch_id)
        values = {"batch_id": batch_id, "images": images, "received": batch.received, "sha256": "0" * 64}
        session.execute(rows, values)
        transitions.change_kept_bytes(session, batch, 0 if batch.received else 1)
        batch.received += images
        batch.queued += images
        transitions.note_change(batch)

    for batch in found:
        db.transact(sessions, work, batch.id)


def lose(sessions: db.Sessions, token: uuid.UUID) -> None:
    """Let a lease expire, so that the reaper's next round takes the claim back."""
    past = sa.update(Claim).where(Claim.token == token).values(expires_at=db.now(-1))
    db.transact(sessions, lambda session: session.execute(past))


def finish(sessions: db.Sessions, who: Claimant) -> None:
    """Take and record claims until nothing waits."""
    while lease := take_next(sessions, who):
        db.transact(sessions, claims.record, lease.token, predictions(lease.images, who))


def take_next(sessions: db.Sessions, who: Claimant, most: int = 64) -> Lease | None:
    """Take a suspect, or else the next claim in the fair order."""
    return db.transact(sessions, claims.take_suspect, who) or db.transact(sessions, claims.take, who, most)


@dataclass
class Storm:
    """The outcome of concurrent actions."""

    images: int
    records: int = 0
    leases_lost: int = 0
    cancels: int = 0
    retries: int = 0
    late: int = 0
    """The number of records after a lost lease. Each of them must be refused."""
    errors: list[str] = field(default_factory=list)
    """Errors that reached a caller, although the transaction should have been rerun."""
    breaches: list[str] = field(default_factory=list)
    unfinished: int = 0
    doubled: int = 0
    seconds: float = 0.0

    @property
    def tried(self) -> bool:
        """Whether every kind of action has occurred at least once."""
        return min(self.records, self.leases_lost, self.cancels, self.retries) > 0


def storm(
    sessions: db.Sessions, bundle: bundles.Bundle, settings: Settings, *, images: int = 2_000, seconds: float = 3.0
) -> Storm:
    """Run four workers, two reapers, and ten threads of cancels and retries at once; then finish all batches.

    It lasts ``seconds``, or longer on a busy machine, until each kind of action has occurred.
    """
    who = claimant(sessions, bundle)
    submitted = [submit(sessions, bundle, f"storm {at}", images // 10)[1] for at in range(10)]
    seen = Storm(images)
    ended = threading.Event()
    reapers = [Reaper(settings, sessions, cast(Any, Names()), cast(Any, fakes.Wakeups())) for _ in range(2)]
    alarms = Alarms()
    acts: list[Callable[[random.Random], None]] = [
        *[lambda chance: _work(sessions, who, chance, seen)] * 4,
        *[lambda chance, reaper=reaper: _reap(reaper, ended) for reaper in reapers],
        *[lambda chance: _meddle(sessions, submitted, chance, seen, ended)] * 10,
    ]
    threads = [threading.Thread(target=_again, args=(act, at, ended, seen)) for at, act in enumerate(acts)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    ended.wait(seconds)
    while not seen.tried and time.monotonic() - started < _STORM_SECONDS:
        ended.wait(0.1)
    ended.set()
    for thread in threads:
        thread.join()
    seen.seconds = time.monotonic() - started
    _end(sessions, who, submitted, reapers[0])
    alarms.close()
    seen.errors += alarms.heard
    for batch in submitted:
        found = fakes.get(sessions, batch)
        seen.unfinished += found.finished_at is None
        seen.breaches += [each.detail for each in conservation.audit(sessions, cast(Any, Names()), batch.id).findings]
        seen.doubled += abs(fakes.predictions(sessions, batch.id) - found.done)
    return seen


def _again(act: Callable[[random.Random], None], seed: int, ended: threading.Event, seen: Storm) -> None:
    chance = random.Random(seed)
    while not ended.is_set():
        try:
            act(chance)
        except (errors.Conflict, errors.NotFound):
            continue  # normal responses, not errors
        except Exception as err:  # every other error must not reach a caller
            seen.errors.append(repr(err))


def _work(sessions: db.Sessions, who: Claimant, chance: random.Random, seen: Storm) -> None:
    """Take claims; record them, record some images as failed, give them back, or record them after a lost lease."""
    lease = take_next(sessions, who, 16)
    if lease is None:
        time.sleep(0.02)
        return
    found = predictions(lease.images, who)
    fate = chance.random()
    if fate < 0.15:
        db.transact(sessions, claims.give_back, lease.token)
        return
    if fate < 0.3:
        lose(sessions, lease.token)
        db.transact(sessions, claims.expire, lease.token)
        seen.leases_lost += 1
        try:
            db.transact(sessions, claims.record, lease.token, found)
        except LeaseLost:
            return
        seen.late += 1
    failing = chance.sample(range(len(found)), len(found) // 4)
    for at in failing:
        found[at] = Failed(found[at].image_id, "damaged", "damaged")
    half = len(found) // 2
    for step in (found[:half], found[half:]):
        if step:
            seen.records += db.transact(sessions, claims.record, lease.token, step)


def _reap(reaper: Reaper, ended: threading.Event) -> None:
    reaper.run_round()
    ended.wait(0.05)


def _meddle(
    sessions: db.Sessions, submitted: Sequence[Batch], chance: random.Random, seen: Storm, ended: threading.Event
) -> None:
    """Pause, then mostly retry, sometimes cancel; some cancels stop between their two transactions."""
    ended.wait(chance.uniform(0, 0.1))
    batch = chance.choice(submitted)
    if chance.random() < 0.9 or batch in submitted[:5]:  # half of the batches are never cancelled
        db.transact(sessions, batches.retry, batch.id, by=OPERATOR)
        seen.retries += 1
        return
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    if chance.random() < 0.5:
        db.transact(sessions, batches.sweep, batch.id)
    seen.cancels += 1


def _end(sessions: db.Sessions, who: Claimant, submitted: Sequence[Batch], reaper: Reaper) -> None:
    """Finish what a storm left: leases of ended workers, unfinished cancels, open batches."""
    held = sa.update(Claim).values(expires_at=db.now(-1))
    db.transact(sessions, lambda session: session.execute(held))
    for batch in submitted:
        with contextlib.suppress(errors.Conflict):  # the batch is cancelled
            db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    reaper.run_round()
    finish(sessions, who)


@dataclass
class Turn:
    """The turn of a lab that has just uploaded images."""

    images: int
    """The number of images that it uploaded."""
    round: int
    """The number of images that the other waiting labs get in one round of turns."""
    claims: int = 0
    """The number of claims until the last of its images was taken."""
    waited: int = 0
    """The number of other labs' images that were taken before that."""
    seconds: float = 0.0
    afterwards: dict[int, int] = field(default_factory=dict)
    """The number of images of each lab in the next ten claims."""


def arrive(sessions: db.Sessions, who: Claimant, brought: Batch, *, others: int, most: int = 64) -> Turn:
    """Claim until all images of a new batch are taken, without recording any."""
    turn = Turn(fakes.get(sessions, brought).queued, others * most // fairness.QUANTA)
    waiting = turn.images
    started = time.monotonic()
    while waiting:
        lease = db.transact(sessions, claims.take, who, most)
        assert lease is not None
        turn.claims += 1
        for image in lease.images:
            waiting -= image.batch_id == brought.id
            turn.waited += image.batch_id != brought.id and waiting > 0
    turn.seconds = time.monotonic() - started
    owners = _owners(sessions)
    got: Counter[int] = Counter()
    for _ in range(10):
        lease = db.transact(sessions, claims.take, who, most)
        assert lease is not None
        got.update(owners[image.batch_id] for image in lease.images)
    turn.afterwards = dict(got)
    return turn


def a_small_lab_behind_a_large_one(sessions: db.Sessions, bundle: bundles.Bundle, *, waiting: int = 100_000) -> Turn:
    """One lab has ``waiting`` images in the queue and is being served; a second lab uploads ten."""
    who = claimant(sessions, bundle)
    submit(sessions, bundle, "large", waiting)
    _serve(sessions, who, 20)
    _, brought = submit(sessions, bundle, "small", 10)
    return arrive(sessions, who, brought, others=1)


def a_lab_that_cancelled_comes_back(sessions: db.Sessions, bundle: bundles.Bundle, *, waiting: int = 100_000) -> Turn:
    """A lab cancels ``waiting`` images and uploads ten, while another lab keeps the queue full."""
    who = claimant(sessions, bundle)
    submit(sessions, bundle, "steady", 5_000)
    fickle, regretted = submit(sessions, bundle, "fickle", waiting)
    _serve(sessions, who, 10)
    db.transact(sessions, batches.cancel, regretted.id, by=OPERATOR)
    db.transact(sessions, batches.sweep, regretted.id)
    brought = fakes.create(sessions, fickle, bundle)
    fakes.fill(sessions, brought, 10)
    return arrive(sessions, who, brought, others=1)


def an_old_failure_is_retried_while_a_lab_arrives(sessions: db.Sessions, bundle: bundles.Bundle) -> Turn:
    """A lab retries a thousand old failures, a second lab keeps the queue full, and a third uploads ten."""
    who = claimant(sessions, bundle)
    _, old = submit(sessions, bundle, "old", 1_000)
    while lease := db.transact(sessions, claims.take, who, 64):
        failures = [Failed(image.id, "damaged", "damaged") for image in lease.images]
        db.transact(sessions, claims.record, lease.token, failures)
    submit(sessions, bundle, "steady", 5_000)
    _serve(sessions, who, 10)
    retrying = threading.Event()

    def retry(session: Session) -> int:
        count = batches.retry(session, old.id, by=OPERATOR)
        retrying.set()
        time.sleep(0.3)  # a claim and the new lab come while the retry's transaction is open
        return count

    with ThreadPoolExecutor(1) as aside:
        retried = aside.submit(db.transact, sessions, retry)
        retrying.wait(30)
        _serve(sessions, who, 1)
        _, brought = submit(sessions, bundle, "late", 10)
        assert retried.result() == 1_000
    return arrive(sessions, who, brought, others=2)


def cancel_during_a_claim(sessions: db.Sessions, bundle: bundles.Bundle) -> dict[str, int]:
    """A batch is cancelled and swept while a claim of its images is open; the claim then records what it took."""
    who = claimant(sessions, bundle)
    _, batch = submit(sessions, bundle, "cancelled", 100)
    taken, cancelling = threading.Event(), threading.Event()
    leases: list[Lease | None] = []

    def take(session: Session) -> None:
        leases[:] = [claims.take(session, who, 64)]
        taken.set()
        cancelling.wait()
        time.sleep(0.3)  # the cancel comes while the claim is open

    def cancel() -> None:
        taken.wait()
        cancelling.set()
        db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
        db.transact(sessions, batches.sweep, batch.id)

    threads = [threading.Thread(target=db.transact, args=(sessions, take)), threading.Thread(target=cancel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lease = leases[0]
    assert lease is not None
    db.transact(sessions, claims.record, lease.token, predictions(lease.images, who))
    found = fakes.get(sessions, batch)
    return {name: getattr(found, name) for name in ("received", *ImageState)}


def shares(
    sessions: db.Sessions,
    bundle: bundles.Bundle,
    weights: Sequence[float],
    *,
    count: int = 1_000,
    most: int = 4,
    workers: int = 1,
) -> list[int]:
    """Return the images that labs of these weights got in ``count`` claims, while all had waiting images."""
    who = claimant(sessions, bundle)
    submitted = [submit(sessions, bundle, f"weight {weight:g}", count * most, weight=weight) for weight in weights]
    with ThreadPoolExecutor(workers) as threads:
        leases = list(threads.map(lambda _: db.transact(sessions, claims.take, who, most), range(count)))
    assert all(leases)
    return [fakes.get(sessions, batch).running for _, batch in submitted]


@dataclass
class ClaimTime:
    """The median duration in milliseconds of a claim of 64 images, with ``waiting`` rows in the queue."""

    rows: int
    take: float
    take_suspect: float


def claim_times(
    sessions: db.Sessions, bundle: bundles.Bundle, rows: Sequence[int] = (1_000, 1_000_000), *, count: int = 50
) -> list[ClaimTime]:
    """Measure claims with more and more waiting rows, in 50 batches of 5 labs. Each claim is given back."""
    who = claimant(sessions, bundle)
    owners = [db.transact(sessions, labs.add, f"lab {uuid.uuid4().hex[:8]}") for _ in range(5)]
    submitted = [fakes.create(sessions, owners[at % 5], bundle, name=str(at)) for at in range(50)]
    measured, filled = [], 0
    for wanted in rows:
        fill(sessions, submitted, (wanted - filled) // len(submitted))
        filled = wanted
        with sessions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE" if connection.dialect.name == "postgresql" else "ANALYZE")
        taken, suspects = [], []
        for _ in range(count):
            started = time.perf_counter()
            assert db.transact(sessions, claims.take_suspect, who) is None
            between = time.perf_counter()
            lease = db.transact(sessions, claims.take, who, 64)
            taken.append(1000 * (time.perf_counter() - between))
            suspects.append(1000 * (between - started))
            assert lease is not None and len(lease.images) == 64
            db.transact(sessions, claims.give_back, lease.token)
        measured.append(ClaimTime(wanted, statistics.median(taken), statistics.median(suspects)))
    return measured


def _serve(sessions: db.Sessions, who: Claimant, count: int) -> None:
    for _ in range(count):
        lease = db.transact(sessions, claims.take, who, 64)
        assert lease is not None
        db.transact(sessions, claims.record, lease.token, predictions(lease.images, who))


def _owners(sessions: db.Sessions) -> dict[uuid.UUID, int]:
    wanted = sa.select(Batch.id, Batch.lab_id)
    return dict(db.read(sessions, lambda session: session.execute(wanted).all()))
