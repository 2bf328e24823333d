"""The reaper's duties, each on both databases."""

import os
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, batches, bundles, db
from dermq.blobs import Blobs
from dermq.lifecycle import ArchiveState, BatchState
from dermq.models import Archive, Batch, Claim, Lab, Worker
from dermq.queue import Queue
from dermq.settings import Settings
from tests import fakes
from worker import claims
from worker.presence import Presence
from worker.reaper import Reaper

HOURS_AGO = datetime.now(UTC) - timedelta(hours=5)


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def wakeups() -> fakes.Wakeups:
    return fakes.Wakeups()


@pytest.fixture
def reaper(sessions: db.Sessions, blobs: Blobs, settings: Settings, wakeups: fakes.Wakeups) -> Reaper:
    return Reaper(settings, sessions, blobs, wakeups)  # type: ignore[arg-type]


def update(sessions: db.Sessions, table: Any, **values: Any) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(table).values(**values)))


def test_expired_leases_are_given_back_and_waiting_work_is_woken(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, wakeups: fakes.Wakeups
) -> None:
    fakes.fill(sessions, batch, 3)
    assert db.transact(sessions, claims.take, claims.Claimant("w", batch.bundle_id, -1.0), 8)
    reaper.round()
    found = fakes.get(sessions, batch)
    assert (found.queued, found.running) == (3, 0)
    assert wakeups.sent == [Queue.CLASSIFY]


def test_a_cancel_that_stopped_halfway_is_finished(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    fakes.fill(sessions, batch, 3)
    db.transact(sessions, archives.begin, batch.id, batches.new_id())
    db.transact(sessions, batches.cancel, batch.id)
    reaper.round()
    found = fakes.get(sessions, batch)
    assert (found.cancelled, found.archives_open) == (3, 0) and found.finished_at is not None


def test_a_delete_that_stopped_halfway_is_finished(
    sessions: db.Sessions, blobs: Blobs, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(3))
    db.transact(sessions, batches.mark_deleted, batch.id)
    reaper.round()
    assert db.read(sessions, lambda session: session.get(Batch, batch.id)) is None
    assert not blobs.list(batch.id)


def test_an_idle_open_batch_is_sealed(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    reaper.round()
    assert fakes.get(sessions, batch).state is BatchState.OPEN
    update(sessions, Batch, touched_at=HOURS_AGO)
    reaper.round()
    assert fakes.get(sessions, batch).state is BatchState.FINISHED


def test_an_abandoned_upload_no_longer_holds_its_batch(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    archive_id = batches.new_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    reaper.round()
    assert fakes.get(sessions, batch).archives_open == 1
    update(sessions, Archive, touched_at=HOURS_AGO)
    reaper.round()
    found = db.read(sessions, lambda session: session.get(Archive, archive_id))
    assert found is not None and found.state is ArchiveState.FAILED and found.error_code == "upload_abandoned"
    assert fakes.get(sessions, batch).archives_open == 0


def test_a_lost_unpacker_is_replaced_and_the_third_fails_the_archive(
    sessions: db.Sessions, blobs: Blobs, batch: Batch, reaper: Reaper
) -> None:
    archive_id = batches.new_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    for loss in range(1, 4):
        token = uuid.uuid4()
        claim = sa.insert(Claim).values(token=token, worker="w", expires_at=db.now(-1))
        db.transact(sessions, lambda session, claim=claim: session.execute(claim))  # type: ignore[misc]
        update(sessions, Archive, state=ArchiveState.UNPACKING, claim_token=token)
        reaper.round()
        found = db.read(sessions, lambda session: session.get(Archive, archive_id))
        assert found is not None and found.losses == loss
        assert found.state is (ArchiveState.STORED if loss < 3 else ArchiveState.FAILED)
    assert fakes.get(sessions, batch).archives_open == 0


def test_batches_are_deleted_when_their_time_is_over(
    sessions: db.Sessions, blobs: Blobs, settings: Settings, batch: Batch, wakeups: fakes.Wakeups
) -> None:
    db.transact(sessions, batches.seal, batch.id)
    update(sessions, Batch, finished_at=datetime.now(UTC) - timedelta(days=8))
    for days, left in ((0, True), (9, True), (7, False)):
        keeping = settings.model_copy(update={"retention_days": days})
        reaper = Reaper(keeping, sessions, blobs, wakeups)  # type: ignore[arg-type]
        reaper.round()
        reaper.round()
        assert (db.read(sessions, lambda session: session.get(Batch, batch.id)) is not None) is left


def test_orphan_blobs_are_removed_and_others_kept(
    sessions: db.Sessions, blobs: Blobs, settings: Settings, batch: Batch, reaper: Reaper
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(1))
    orphan = blobs.root / str(uuid.uuid4())
    orphan.mkdir()
    reaper.round()
    assert orphan.exists(), "a young folder may belong to a batch that is about to be committed"
    for folder in (orphan, blobs.root / str(batch.id)):
        os.utime(folder, (0, 0))
    reaper.round()
    assert not orphan.exists() and len(blobs.list(batch.id)) == 1


def test_workers_unseen_for_long_are_forgotten(sessions: db.Sessions, reaper: Reaper) -> None:
    presence = Presence(sessions, "w", Queue.CLASSIFY, every_seconds=60)
    presence.start()
    reaper.round()
    names = sa.select(Worker.name)
    assert db.read(sessions, lambda session: session.scalars(names).all()) == ["w"]
    update(sessions, Worker, seen_at=HOURS_AGO)
    reaper.round()
    assert db.read(sessions, lambda session: session.scalars(names).all()) == []
    presence.stop()


def test_only_one_reaper_works_at_a_time(sessions: db.Sessions, batch: Batch, reaper: Reaper) -> None:
    update(sessions, Batch, touched_at=HOURS_AGO)
    with db.single_flight(sessions, "reaper") as alone:
        assert alone
        reaper.round()
    assert fakes.get(sessions, batch).state is BatchState.OPEN
    reaper.round()
    assert fakes.get(sessions, batch).state is BatchState.FINISHED


def test_a_duty_that_fails_does_not_stop_the_others(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    broken.__name__ = "expire_leases"
    monkeypatch.setattr(reaper, "expire_leases", broken)
    update(sessions, Batch, touched_at=HOURS_AGO)
    reaper.round()
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
    reaper.round()
    assert fakes.get(sessions, batch).queued == 1


def test_counts_that_differ_from_the_rows_are_said(
    sessions: db.Sessions, batch: Batch, reaper: Reaper, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.fill(sessions, batch, 3)
    reaper.check_conservation()
    assert "counts other" not in caplog.text
    update(sessions, Batch, received=4, done=1)
    reaper.check_conservation()
    assert "'done': (1, 0)" in caplog.text and "'received': (4, 3)" in caplog.text


def test_a_batch_touched_meanwhile_is_not_sealed(sessions: db.Sessions, batch: Batch) -> None:
    assert not db.transact(sessions, batches.seal_idle, batch.id, untouched_since=HOURS_AGO)
    assert fakes.get(sessions, batch).state is BatchState.OPEN
