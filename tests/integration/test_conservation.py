"""The conservation check finds every breach, and has no false alarms during other work. On both databases."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dermq import archives, batches, bundles, conservation, db, errors
from dermq.conservation import Breach
from dermq.lifecycle import ArchiveState, ImageState
from dermq.models import Archive, Batch, Claim, Image, Lab, Prediction, Refusal
from dermq.principals import OPERATOR
from dermq.queue import archive_claims, claims
from dermq.queue.claims import Claimant
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import fakes, samples
from worker.classify import pipeline
from worker.classify.runtime import ClassifyRuntime
from worker.intake import unpack

LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def runtime(sessions: db.Sessions, blobs: LocalStore, settings: Settings, bundle: bundles.Bundle) -> ClassifyRuntime:
    return fakes.runtime(settings, sessions, blobs, bundle, fakes.Engine())


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


class World:
    """A batch with two images done, one running and one queued, one file refused and an archive that waits."""

    def __init__(self, runtime: ClassifyRuntime, batch: Batch) -> None:
        self.runtime, self.batch, self.sessions = runtime, batch, runtime.sessions
        self.add(fakes.pictures(2))
        pipeline.drain(runtime)
        self.add({"c.jpg": samples.jpeg(2), "d.jpg": samples.jpeg(3)})
        self.add({"c.jpg": samples.jpeg(4)})  # the name exists already
        self.take(1)
        self.store()

    def add(self, files: dict[str, bytes]) -> None:
        fakes.add(self.sessions, self.runtime.blobs, self.runtime.settings, self.batch, files)

    def take(self, most: int) -> None:
        assert db.transact(self.sessions, claims.take, Claimant("w", self.batch.bundle_id, 60.0), most)

    def store(self) -> None:
        archive_id = batches.make_id()
        db.transact(self.sessions, archives.begin, self.batch.id, archive_id)
        with self.runtime.blobs.receive() as file:
            file.write(samples.archive({"e.jpg": samples.jpeg(5)}))
            file.finish()
            archives.keep(self.sessions, self.runtime.blobs, archive_id, file)
            db.transact(self.sessions, archives.store, archive_id, file)

    def do(self, statement: sa.Executable) -> None:
        db.transact(self.sessions, lambda session: session.execute(statement))

    def update(self, table: Any, *where: sa.ColumnElement[bool], **values: Any) -> None:
        self.do(sa.update(table).where(*where).values(**values))

    def audit(self) -> conservation.Audit:
        return conservation.audit(self.sessions, self.runtime.blobs, self.batch.id)

    def breaches(self) -> list[Breach]:
        return [finding.breach for finding in self.audit().findings]

    def count(self, **counts: int) -> None:
        """Set the counts to those of the rows."""
        self.update(Batch, **{name: getattr(Batch, name) + by for name, by in counts.items()})

    def token(self) -> uuid.UUID:
        found = db.read(self.sessions, lambda session: session.scalar(sa.select(Claim.token)))
        assert isinstance(found, uuid.UUID)
        return found

    def double_prediction(self) -> None:
        """Insert a second prediction. The table allows that only without its unique key."""
        for statement in (
            "CREATE TABLE copied AS SELECT * FROM prediction",
            "DROP TABLE prediction",
            "ALTER TABLE copied RENAME TO prediction",
            "INSERT INTO prediction SELECT * FROM prediction WHERE image_id = (SELECT min(image_id) FROM prediction)",
        ):
            self.do(sa.text(statement))


@pytest.fixture
def world(runtime: ClassifyRuntime, batch: Batch) -> World:
    return World(runtime, batch)


def finish_early(world: World) -> None:
    world.update(Batch, finished_at=LONG_AGO)


def seal_without_settling(world: World) -> None:
    of_archives = sa.select(sa.func.sum(Archive.bytes)).scalar_subquery()
    world.update(Batch, kept_bytes=Batch.kept_bytes - of_archives)
    world.do(sa.delete(Archive))
    world.update(Image, state=ImageState.FAILED, claim_token=None)
    world.do(sa.delete(Prediction))
    world.update(Batch, sealed_at=LONG_AGO, archives_open=0, queued=0, running=0, done=0, failed=4)


def cancel_without_sweeping(world: World) -> None:
    seal_without_settling(world)
    world.update(Batch, cancelled_at=LONG_AGO)


def lose_image_file(world: World) -> None:
    world.runtime.blobs.delete(world.batch.id, fakes.images(world.sessions, world.batch)[0].sha256)


def lose_archive_file(world: World) -> None:
    sha256 = db.read(world.sessions, lambda session: session.scalar(sa.select(Archive.sha256)))
    assert sha256 is not None
    world.runtime.blobs.delete(world.batch.id, sha256)


def leave_claim(world: World) -> None:
    world.update(Image, Image.state == ImageState.QUEUED, claim_token=world.token())


def predict_early(world: World) -> None:
    world.update(Image, Image.position == 1, state=ImageState.FAILED)
    world.count(done=-1, failed=1)


CAUSES: dict[str, tuple[Callable[[World], None], Breach, str]] = {
    "an image counted that is not there": (
        lambda world: world.count(received=1, done=1),
        Breach.COUNTS_DIFFER,
        "this does not hold for: done (3 counted, 2 in rows), received (5 counted, 4 in rows).",
    ),
    "a refusal that is not there": (
        lambda world: world.do(sa.delete(Refusal)),
        Breach.COUNTS_DIFFER,
        "this does not hold for: refused (1 counted, 0 in rows).",
    ),
    "an archive counted that is closed": (
        lambda world: world.update(Archive, state=ArchiveState.FAILED),
        Breach.COUNTS_DIFFER,
        "this does not hold for: archives_open (1 counted, 0 in rows), kept_bytes (",
    ),
    "bytes counted that are not kept": (
        lambda world: world.count(kept_bytes=1),
        Breach.COUNTS_DIFFER,
        "this does not hold for: kept_bytes (",
    ),
    "finished early": (
        finish_early,
        Breach.FINISHED_EARLY,
        "this does not hold for: queued (1), running (1), archives_open (1).",
    ),
    "sealed and not settled": (seal_without_settling, Breach.NOT_SETTLED, "this does not hold for: this batch."),
    "cancelled and not swept": (cancel_without_sweeping, Breach.NOT_SETTLED, "this does not hold for: this batch."),
    "a prediction lost": (
        lambda world: world.do(sa.delete(Prediction)),
        Breach.PREDICTION_MISSING,
        "this does not hold for: image 1, image 2.",
    ),
    "two predictions by one bundle": (
        lambda world: world.double_prediction(),
        Breach.PREDICTION_DOUBLED,
        "this does not hold for: image 1 (2).",
    ),
    "a prediction of a failed image": (
        predict_early,
        Breach.PREDICTION_UNDUE,
        "this does not hold for: image 1 (failed).",
    ),
    "an image that nobody holds": (
        lambda world: world.update(Image, claim_token=None),
        Breach.CLAIM_MISSING,
        "this does not hold for: image 3.",
    ),
    "a queued image that somebody holds": (leave_claim, Breach.CLAIM_LEFT, "this does not hold for: image 4."),
    "a lease that nobody takes back": (
        lambda world: world.update(Claim, expires_at=LONG_AGO),
        Breach.CLAIM_STALE,
        "this does not hold for: image 3.",
    ),
    "an image's file lost": (lose_image_file, Breach.FILE_MISSING, "this does not hold for: image 1."),
    "an archive's file lost": (lose_archive_file, Breach.FILE_MISSING, "this does not hold for: archive "),
}


def test_a_batch_in_the_middle_of_everything_is_conserved(world: World) -> None:
    found = world.audit()
    assert (found.images, found.findings) == (4, ())


@pytest.mark.parametrize("cause", CAUSES)
def test_each_kind_of_breach_is_found_alone_and_reported(world: World, cause: str) -> None:
    break_it, breach, told = CAUSES[cause]
    break_it(world)
    [finding] = world.audit().findings
    assert finding.breach is breach and told in finding.detail


def test_an_archive_being_unpacked_is_held_by_a_claim(world: World) -> None:
    task = db.transact(world.sessions, archive_claims.take, "w", 60)
    assert task is not None and world.breaches() == []
    world.update(Archive, claim_token=None)
    assert world.breaches() == [Breach.CLAIM_MISSING]


def test_all_pages_are_looked_at_and_a_finding_names_a_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conservation, "_PAGE_IMAGES", 3)
    world.add({f"{seed}.jpg": samples.jpeg(seed) for seed in range(10, 16)})
    for image in fakes.images(world.sessions, world.batch)[2:]:
        world.runtime.blobs.delete(world.batch.id, image.sha256)
    [finding] = world.audit().findings
    assert finding.detail.endswith("this does not hold for: image 3, image 4, image 5, image 6, image 7 and 3 more.")


def test_a_whole_life_is_conserved_at_every_step(world: World) -> None:
    """Given every kind of end, when the batch goes on step by step, then no step is a breach."""
    lease = world.token()
    steps: list[Callable[[], object]] = [
        lambda: db.transact(world.sessions, claims.give_back, lease, lost=True),
        lambda: world.add({"bad.jpg": samples.truncated_jpeg()}),
        lambda: pipeline.drain(world.runtime),
        lambda: unpack.drain(world.runtime),
        lambda: pipeline.drain(world.runtime),
        lambda: db.transact(world.sessions, batches.seal, world.batch.id, by=OPERATOR),
        lambda: db.transact(world.sessions, batches.retry, world.batch.id, by=OPERATOR),
        lambda: db.transact(world.sessions, batches.cancel, world.batch.id, by=OPERATOR),
        lambda: db.transact(world.sessions, batches.sweep, world.batch.id),
    ]
    for step in steps:
        step()
        assert world.audit().findings == ()
    found = fakes.get(world.sessions, world.batch)
    assert (found.done, found.cancelled, found.finished_at is not None) == (5, 1, True)


def test_a_batch_cancelled_this_moment_is_no_breach(sessions: db.Sessions, blobs: LocalStore, batch: Batch) -> None:
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    assert conservation.audit(sessions, blobs, batch.id).findings == ()


def test_a_claim_of_nothing_is_stale_when_it_ran_out_long_ago(world: World) -> None:
    """A stale claim that holds an image is reported as a finding of that image."""
    of_nothing = uuid.uuid4()
    world.do(sa.insert(Claim).values(token=of_nothing, worker="w", expires_at=db.now(-1)))
    assert db.read(world.sessions, conservation.find_stale_claims) == []
    world.update(Claim, expires_at=LONG_AGO)
    [finding] = db.read(world.sessions, conservation.find_stale_claims)
    assert finding.breach is Breach.CLAIM_STALE and finding.detail.endswith(
        f"this does not hold for: claim {of_nothing}."
    )


def test_a_store_that_is_not_there_is_no_breach_of_every_batch(world: World) -> None:
    world.runtime.settings.blobs.rename(world.runtime.settings.blobs.with_name("not mounted"))
    with pytest.raises(errors.Transient):
        world.audit()


def meanwhile(world: World, monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """Call a function once, after the rows are read and before the files are listed."""
    listed, happened = LocalStore.list, list[bool]()

    def list_later(self: LocalStore, batch: uuid.UUID, **age: float) -> list[str]:
        if not happened:
            happened.append(True)
            happen()
        return listed(self, batch, **age)

    monkeypatch.setattr(LocalStore, "list", list_later)


def test_a_batch_deleted_meanwhile_is_no_breach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete() -> None:
        db.transact(world.sessions, batches.mark_deleted, world.batch.id, by=OPERATOR)
        world.runtime.blobs.delete_batch(world.batch.id)

    meanwhile(world, monkeypatch, delete)
    found = world.audit()
    assert (found.images, found.findings) == (0, ())


def test_an_archive_unpacked_meanwhile_is_no_breach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(world, monkeypatch, lambda: unpack.drain(world.runtime))
    assert world.audit().findings == ()


def test_nothing_is_found_while_others_upload_work_and_delete(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    sessions, ended = runtime.sessions, threading.Event()
    living = [fakes.create(sessions, lab, bundle)]
    audits: list[conservation.Audit] = []
    failures: list[Exception] = []

    def audit() -> None:
        try:
            while not ended.is_set():
                for batch in living[-2:]:
                    audits.append(conservation.audit(sessions, runtime.blobs, batch.id))
        except Exception as err:
            failures.append(err)

    auditor = threading.Thread(target=audit)
    auditor.start()
    began = time.monotonic()

    def has_seen_all() -> bool:
        return len(living) > 2 and {0, 8} <= {audit.images for audit in audits}

    # At least two seconds, and as long as a slow machine needs to show the auditor empty and filled batches.
    while time.monotonic() - began < (2.0 if has_seen_all() else 60.0):
        living.append(batch := fakes.create(sessions, lab, bundle))
        for _ in range(2):
            fakes.add(sessions, runtime.blobs, runtime.settings, batch, fakes.pictures(8))
            pipeline.drain(runtime)
        db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
        while db.transact(sessions, batches.purge_page, batch.id):
            pass
        runtime.blobs.delete_batch(batch.id)
    ended.set()
    auditor.join()
    assert failures == [] and {audit.findings for audit in audits} == {()}
    assert has_seen_all()
