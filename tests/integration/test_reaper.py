"""The reaper's duties, each on both databases."""

import contextlib
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, arrivals, batches, bundles, db, deletion, errors
from dermq.lifecycle import ArchiveState, BatchState
from dermq.models import Archive, Batch, Claim, Image, Lab, Worker
from dermq.principals import OPERATOR
from dermq.queue import claims
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.storage.protocol import THUMBNAIL
from dermq.wakeups import Queue
from tests import fakes, samples
from worker.process.heartbeat import Heartbeat
from worker.reaper import Reaper

HOURS_AGO = datetime.now(UTC) - timedelta(hours=5)


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def wakeups() -> fakes.Wakeups:
    return fakes.Wakeups()


@pytest.fixture
def reaper(sessions: db.Sessions, blobs: LocalStore, settings: Settings, wakeups: fakes.Wakeups) -> Reaper:
    return Reaper(settings, sessions, blobs, wakeups)  # type: ignore[arg-type]


def update(sessions: db.Sessions, table: Any, **values: Any) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(table).values(**values)))


def test_expired_leases_are_given_back_and_waiting_work_is_woken(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, wakeups: fakes.Wakeups
) -> None:
    fakes.fill(sessions, batch, 3)
    assert db.transact(sessions, claims.take, claims.Claimant("w", batch.bundle_id, -1.0), 8)
    reaper.run_round()
    found = fakes.get(sessions, batch)
    assert (found.queued, found.running) == (3, 0)
    assert wakeups.sent == [Queue.CLASSIFY]


def test_a_lease_that_could_not_be_renewed_while_the_database_was_unreachable_gets_one_more_round(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(session: Session, *arguments: Any) -> Any:
        raise errors.Unavailable("database_unavailable", "The database cannot be reached.")

    fakes.fill(sessions, batch, 3)
    assert db.transact(sessions, claims.take, claims.Claimant("w", batch.bundle_id, -1.0), 8)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "list_expired", away)
        reaper.run_round()
    reaper.run_round()
    assert fakes.get(sessions, batch).running == 3, "whoever lives can renew it now"
    reaper.run_round()
    assert fakes.get(sessions, batch).running == 0, "nobody did"


def test_a_cancel_that_stopped_halfway_is_finished(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    fakes.fill(sessions, batch, 3)
    db.transact(sessions, archives.begin, batch.id, batches.make_id())
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    reaper.run_round()
    found = fakes.get(sessions, batch)
    assert (found.cancelled, found.archives_open) == (3, 0) and found.finished_at is not None


def test_a_delete_that_stopped_halfway_is_finished(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(3))
    db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
    reaper.run_round()
    assert db.read(sessions, lambda session: session.get(Batch, batch.id)) is None
    assert not blobs.list(batch.id)


def test_an_idle_open_batch_is_sealed(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    reaper.run_round()
    assert fakes.get(sessions, batch).state is BatchState.OPEN
    update(sessions, Batch, touched_at=HOURS_AGO)
    reaper.run_round()
    assert fakes.get(sessions, batch).state is BatchState.FINISHED


def test_an_abandoned_upload_no_longer_holds_its_batch(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    reaper.run_round()
    assert fakes.get(sessions, batch).archives_open == 1
    update(sessions, Archive, touched_at=HOURS_AGO)
    reaper.run_round()
    found = db.read(sessions, lambda session: session.get(Archive, archive_id))
    assert found is not None and found.state is ArchiveState.FAILED and found.error_code == "upload_abandoned"
    assert fakes.get(sessions, batch).archives_open == 0


def test_a_lost_unpacker_is_replaced_and_the_third_fails_the_archive(
    sessions: db.Sessions, blobs: LocalStore, batch: Batch, reaper: Reaper
) -> None:
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    for loss in range(1, 4):
        token = uuid.uuid4()
        claim = sa.insert(Claim).values(token=token, worker="w", expires_at=db.now(-1))
        db.transact(sessions, lambda session, claim=claim: session.execute(claim))
        update(sessions, Archive, state=ArchiveState.UNPACKING, claim_token=token)
        reaper.run_round()
        found = db.read(sessions, lambda session: session.get(Archive, archive_id))
        assert found is not None and found.losses == loss
        assert found.state is (ArchiveState.STORED if loss < 3 else ArchiveState.FAILED)
    assert fakes.get(sessions, batch).archives_open == 0


def test_batches_are_deleted_when_their_time_is_over(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, wakeups: fakes.Wakeups
) -> None:
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    update(sessions, Batch, finished_at=datetime.now(UTC) - timedelta(days=8))
    for days, left in ((0, True), (9, True), (7, False)):
        keeping = settings.model_copy(update={"retention_days": days})
        reaper = Reaper(keeping, sessions, blobs, wakeups)  # type: ignore[arg-type]
        reaper.run_round()
        reaper.run_round()
        assert (db.read(sessions, lambda session: session.get(Batch, batch.id)) is not None) is left


def test_a_batch_that_was_retried_meanwhile_is_not_deleted(sessions: db.Sessions, batch: Batch) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1)
    for finished_at, deleted in ((None, False), (datetime.now(UTC), False), (long_ago - timedelta(days=1), True)):
        update(sessions, Batch, finished_at=finished_at)
        db.transact(sessions, batches.mark_deleted, batch.id, finished_before=long_ago, by=OPERATOR)
        assert (fakes.get(sessions, batch).deleted_at is not None) is deleted


def test_the_first_files_of_all_begin_the_store_and_no_others(
    sessions: db.Sessions, settings: Settings, batch: Batch, tmp_path: Path
) -> None:
    first, other = LocalStore(tmp_path / "first"), LocalStore(tmp_path / "other")
    fakes.add(sessions, first, settings, batch, fakes.pictures(1))
    first.probe()
    with pytest.raises(errors.Transient, match="Nothing was stored"):
        fakes.add(sessions, other, settings, batch, fakes.pictures(2))
    assert fakes.get(sessions, batch).received == 1


def test_orphan_blobs_are_removed_and_others_kept(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(1))
    orphan = blobs.root / str(uuid.uuid4())
    orphan.mkdir()
    reaper.run_round()
    assert orphan.exists(), "a young folder may belong to a batch that is about to be committed"
    for folder in (orphan, blobs.root / str(batch.id)):
        os.utime(folder, (0, 0))
    reaper.run_round()
    assert not orphan.exists() and len(blobs.list(batch.id)) == 1


def test_workers_unseen_for_long_are_forgotten(sessions: db.Sessions, reaper: Reaper) -> None:
    heartbeat = Heartbeat(sessions, "w", Queue.CLASSIFY, every_seconds=60)
    heartbeat.start()
    reaper.run_round()
    names = sa.select(Worker.name)
    assert db.read(sessions, lambda session: session.scalars(names).all()) == ["w"]
    update(sessions, Worker, seen_at=HOURS_AGO)
    reaper.run_round()
    assert db.read(sessions, lambda session: session.scalars(names).all()) == []
    heartbeat.stop()


def test_only_one_reaper_works_at_a_time(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    update(sessions, Batch, touched_at=HOURS_AGO)
    with db.try_lock(sessions, "reaper") as alone:
        assert alone
        reaper.run_round()
    assert fakes.get(sessions, batch).state is BatchState.OPEN
    reaper.run_round()
    assert fakes.get(sessions, batch).state is BatchState.FINISHED


def test_a_duty_that_fails_does_not_stop_the_others(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    broken.__name__ = "expire_leases"
    monkeypatch.setattr(reaper, "expire_leases", broken)
    update(sessions, Batch, touched_at=HOURS_AGO)
    reaper.run_round()
    assert fakes.get(sessions, batch).state is BatchState.FINISHED


def test_a_lease_that_cannot_be_expired_keeps_no_other_waiting(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.fill(sessions, batch, 2)
    leases = [db.transact(sessions, claims.take, claims.Claimant("w", batch.bundle_id, -1.0), 1) for _ in range(2)]
    stuck = min(lease.token for lease in leases if lease)
    expire = claims.expire

    def fails_for_one(session: Session, token: uuid.UUID) -> bool:
        if token == stuck:
            raise RuntimeError("stuck")
        return expire(session, token)

    monkeypatch.setattr(claims, "expire", fails_for_one)
    reaper.run_round()
    assert fakes.get(sessions, batch).queued == 1


def test_a_breach_is_logged_and_marked_until_it_is_repaired_and_changes_no_status(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    batch: Batch,
    reaper: Reaper,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(3))
    reaper.check_conservation()
    before = fakes.get(sessions, batch)
    assert before.breached_at is None and "in breach" not in caplog.text
    update(sessions, Batch, received=4, done=1)
    reaper.check_conservation()
    since = fakes.get(sessions, batch).breached_at
    assert since is not None and f"batch {batch.id} is in breach (counts_differ)" in caplog.text
    reaper.check_conservation()
    assert fakes.get(sessions, batch).breached_at == since
    update(sessions, Batch, received=3, done=0)
    reaper.check_conservation()
    after = fakes.get(sessions, batch)
    assert (after.breached_at, after.version) == (None, before.version)


def test_every_batch_is_checked_in_its_turn(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reaper._CHECKED_BATCHES", 2)
    created = [fakes.create(sessions, lab, bundle) for _ in range(5)]
    update(sessions, Batch, received=1, done=1)
    breached = sa.select(sa.func.count()).where(Batch.breached_at.is_not(None))
    seen = []
    for _ in range(3):
        reaper.check_conservation()
        seen.append(db.read(sessions, lambda session: session.scalar(breached)))
    assert seen == [2, 4, len(created)]
    update(sessions, Batch, received=0, done=0)
    reaper.check_conservation()
    assert db.read(sessions, lambda session: session.scalar(breached)) == 3


def test_a_batch_that_cannot_be_checked_keeps_no_other_waiting(
    sessions: db.Sessions,
    blobs: LocalStore,
    lab: Lab,
    bundle: bundles.Bundle,
    reaper: Reaper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad, good = fakes.create(sessions, lab, bundle), fakes.create(sessions, lab, bundle)
    update(sessions, Batch, received=1, done=1)
    listed = LocalStore.list

    def fails_for_one(self: LocalStore, batch: uuid.UUID, **age: float) -> list[str]:
        if batch == bad.id:
            raise errors.Transient("storage_failed", "The storage failed.")
        return listed(self, batch, **age)

    monkeypatch.setattr(LocalStore, "list", fails_for_one)
    for _ in range(2):
        reaper.run_round()
    assert fakes.get(sessions, good).breached_at is not None


@pytest.fixture
def uploaded(sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch) -> set[str]:
    """The names of the old files of an image and of a stored archive."""
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(1))
    [image] = fakes.images(sessions, batch)
    blobs.put_thumbnail(batch.id, image.sha256, b"thumbnail")
    store(sessions, blobs, batch, samples.archive({"a.jpg": samples.jpeg(1)}))
    age(blobs, batch)
    return set(blobs.list(batch.id))


def store(sessions: db.Sessions, blobs: LocalStore, batch: Batch, data: bytes) -> uuid.UUID:
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    with blobs.receive() as file:
        file.write(data)
        file.finish()
        archives.keep(sessions, blobs, archive_id, file)
        db.transact(sessions, archives.store, archive_id, file)
    return archive_id


def leave_orphan(blobs: LocalStore, batch: Batch, data: bytes) -> str:
    """Leave an orphan, as a web process does that is killed between file and row."""
    with blobs.receive() as file:
        file.write(data)
        file.finish()
        blobs.keep(batch.id, [file])
        return file.sha256


def age(blobs: LocalStore, batch: Batch) -> None:
    for name in blobs.list(batch.id):
        os.utime(blobs.root / str(batch.id) / name, (0, 0))


def test_files_that_no_row_needs_are_removed_when_they_are_old(
    blobs: LocalStore, batch: Batch, reaper: Reaper, uploaded: set[str]
) -> None:
    orphan = leave_orphan(blobs, batch, samples.jpeg(7))
    blobs.put_thumbnail(batch.id, orphan, b"thumbnail")
    reaper.run_round()
    assert set(blobs.list(batch.id)) == {*uploaded, orphan, orphan + THUMBNAIL}
    age(blobs, batch)
    reaper.run_round()
    assert set(blobs.list(batch.id)) == uploaded


@pytest.mark.parametrize("ended", [ArchiveState.DONE, ArchiveState.FAILED, ArchiveState.CANCELLED])
def test_the_file_of_an_archive_that_ended_is_removed(
    sessions: db.Sessions, blobs: LocalStore, batch: Batch, reaper: Reaper, uploaded: set[str], ended: ArchiveState
) -> None:
    update(sessions, Archive, state=ended)
    update(sessions, Batch, archives_open=0, kept_bytes=sa.select(sa.func.sum(Image.bytes)).scalar_subquery())
    reaper.run_round()
    [image] = fakes.images(sessions, batch)
    assert set(blobs.list(batch.id)) == {image.sha256, image.sha256 + THUMBNAIL}
    assert fakes.get(sessions, batch).breached_at is None


def test_an_orphan_whose_bytes_are_uploaded_meanwhile_is_kept(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    name = leave_orphan(blobs, batch, samples.jpeg(0))
    blobs.put_thumbnail(batch.id, name, b"thumbnail")
    removed: list[int] = []

    def collect() -> None:
        removed.append(db.transact(sessions, reaper._remove_orphans, batch.id, [name, name + THUMBNAIL]))

    collector = threading.Thread(target=collect)
    taking = arrivals.receive_file(blobs, "a.jpg", [samples.jpeg(0)], settings)
    with taking as arrival, contextlib.ExitStack() as stack:
        arrivals.keep(sessions, blobs, batch.id, [arrival], settings)
        session = stack.enter_context(sessions.writing())
        arrivals.receive(session, batch.id, [arrival], settings)
        collector.start()
        collector.join(0.3)
        assert collector.is_alive(), "it waits until the row is committed"
    collector.join()
    assert removed == [0] and blobs.list(batch.id) == [name, name + THUMBNAIL]


def test_an_orphan_whose_bytes_are_kept_again_stays_until_its_row_comes(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    name = leave_orphan(blobs, batch, samples.jpeg(0))
    age(blobs, batch)
    with arrivals.receive_file(blobs, "a.jpg", [samples.jpeg(0)], settings) as arrival:
        arrivals.keep(sessions, blobs, batch.id, [arrival], settings)
        db.transact(sessions, reaper._remove_orphans, batch.id, [name])  # the file was old when the reaper listed it
        reaper.remove_orphan_blobs()
        db.transact(sessions, arrivals.receive, batch.id, [arrival], settings)
    assert blobs.list(batch.id) == [name] and fakes.get(sessions, batch).received == 1


def test_no_row_names_a_file_that_was_kept_too_long_ago(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    with arrivals.receive_file(blobs, "a.jpg", [samples.jpeg(0)], settings) as arrival:
        arrivals.keep(sessions, blobs, batch.id, [arrival], settings)
        assert arrival.file.kept_at is not None
        arrival.file.kept_at -= arrivals.KEPT_SECONDS + 1  # as if the program was suspended meanwhile
        with pytest.raises(errors.Transient, match="held up"):
            db.transact(sessions, arrivals.receive, batch.id, [arrival], settings)
    assert fakes.get(sessions, batch).received == 0


def test_files_of_a_batch_that_is_deleted_before_their_rows_are_collected(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    with arrivals.receive_file(blobs, "a.jpg", [samples.jpeg(0)], settings) as arrival:
        db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
        deletion.purge(sessions, blobs, batch.id)
        arrivals.keep(sessions, blobs, batch.id, [arrival], settings)
        with pytest.raises(errors.NotFound):
            db.transact(sessions, arrivals.receive, batch.id, [arrival], settings)
    assert blobs.list(batch.id)
    os.utime(blobs.root / str(batch.id), (0, 0))
    reaper.remove_orphan_blobs()
    assert not blobs.list(batch.id)


def test_a_file_that_found_no_room_is_refused_and_leaves_nothing(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch
) -> None:
    full = settings.model_copy(update={"max_images_per_batch": 1})
    fakes.add(sessions, blobs, full, batch, fakes.pictures(1))
    with arrivals.receive_file(blobs, "more.jpg", [samples.jpeg(5)], settings) as arrival:
        arrivals.keep(sessions, blobs, batch.id, [arrival], full)
        [verdict] = db.transact(sessions, arrivals.receive, batch.id, [arrival], settings)  # now the disk has space
    assert verdict.error is not None and verdict.error.code == "batch_full"
    assert len(blobs.list(batch.id)) == 1


def test_an_archive_sent_again_while_the_first_ends_keeps_its_file(
    sessions: db.Sessions, blobs: LocalStore, batch: Batch
) -> None:
    data = samples.archive({"a.jpg": samples.jpeg(1)})
    store(sessions, blobs, batch, data)
    update(sessions, Archive, state=ArchiveState.FAILED)
    update(sessions, Batch, archives_open=0)
    age(blobs, batch)
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    with blobs.receive() as file:
        file.write(data)
        file.finish()
        archives.keep(sessions, blobs, archive_id, file)
        drop = partial(archives.drop_blob, older_than_seconds=60)
        db.transact(sessions, drop, batch.id, file.sha256, blobs)
        db.transact(sessions, archives.store, archive_id, file)
    assert blobs.list(batch.id) == [file.sha256]


def test_a_file_that_a_row_needs_by_now_is_kept(
    sessions: db.Sessions, blobs: LocalStore, batch: Batch, reaper: Reaper, uploaded: set[str]
) -> None:
    assert db.transact(sessions, reaper._remove_orphans, batch.id, sorted(uploaded)) == 0
    assert set(blobs.list(batch.id)) == uploaded and len(uploaded) == 3


def test_a_file_collected_between_two_runs_of_its_upload_is_missed(blobs: LocalStore, batch: Batch) -> None:
    with blobs.receive() as file:
        file.write(b"bytes")
        file.finish()
        blobs.keep(batch.id, [file])
        blobs.keep(batch.id, [file])
        blobs.delete(batch.id, file.sha256)
        with pytest.raises(errors.Transient):
            blobs.keep(batch.id, [file])


def test_a_batch_touched_meanwhile_is_not_sealed(sessions: db.Sessions, batch: Batch) -> None:
    assert not db.transact(sessions, batches.seal_idle, batch.id, untouched_since=HOURS_AGO, by=OPERATOR)
    assert fakes.get(sessions, batch).state is BatchState.OPEN
