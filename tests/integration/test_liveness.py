"""A drain's heartbeat writes its progress to rows, and liveness reads it from there."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from dermq import archives, batches, bundles, db, liveness
from dermq.models import Archive, Batch, Lab, Worker
from dermq.principals import OPERATOR
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import fakes, samples
from tests.processes import until
from worker.classify import pipeline
from worker.classify.runtime import ClassifyRuntime
from worker.intake import unpack
from worker.process import heartbeat, watchdog
from worker.process.heartbeat import Heartbeat, Loaded


class Counted(Heartbeat):
    """A heartbeat without a row. It counts the calls of ``note_progress`` and records what was held at each."""

    def __init__(self) -> None:
        self.times = 0
        self.shown: list[Loaded | None] = []

    def note_progress(self) -> None:
        self.times += 1

    def show_loaded(self, loaded: Loaded | None) -> None:
        self.shown.append(loaded)


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def runtime(
    settings: Settings, sessions: db.Sessions, blobs: LocalStore, bundle: bundles.Bundle, counted: Counted
) -> ClassifyRuntime:
    return dataclasses.replace(fakes.runtime(settings, sessions, blobs, bundle, fakes.Engine()), heartbeat=counted)


def waited(sessions: db.Sessions, queue: Queue) -> float | None:
    return db.read(sessions, liveness.measure_waited_seconds, queue)


def update(sessions: db.Sessions, table: type[Batch | Archive | Worker], **values: object) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(table).values(**values)))


def pulse(sessions: db.Sessions) -> liveness.Pulse:
    [found] = db.read(sessions, liveness.list_pulses)
    return found


def test_a_drain_that_finds_nothing_that_it_can_claim_gets_on(
    sessions: db.Sessions, runtime: ClassifyRuntime, counted: Counted, lab: Lab, bundle: bundles.Bundle
) -> None:
    pipeline.drain(runtime)
    assert counted.times == 1
    elsewhere = bundles.Bundle(bundle.path, bundle.card, "0" * 64)
    fakes.fill(sessions, fakes.create(sessions, lab, elsewhere), 3)
    pipeline.drain(runtime)
    assert counted.times == 2


def test_an_engine_that_hangs_does_not_get_on(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    batch: Batch,
    runtime: ClassifyRuntime,
    counted: Counted,
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(3))
    seen: list[int] = []

    def hang(pixels: NDArray[np.uint8]) -> None:
        seen.append(counted.times)
        time.sleep(0.3)
        seen.append(counted.times)

    assert runtime.models.held is not None
    runtime.models.held.engine.before = hang  # type: ignore[attr-defined]
    began = time.monotonic()
    pipeline.drain(runtime)
    befores, afters = seen[::2], seen[1::2]  # a pair for each step; a slow machine may make more than one
    most_waits = 1 + int((time.monotonic() - began) / pipeline.STOP_CHECK_SECONDS)
    assert 2 <= befores[0] <= 1 + most_waits, "a claim, and each wait for decoders, which have limits of their own"
    assert afters == befores, "nothing while the engine predicts"
    assert counted.times == afters[-1] + 3, "then a prediction, a record, and nothing more to claim"


def test_a_worker_holds_no_model_while_it_looks_for_one(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    batch: Batch,
    bundle: bundles.Bundle,
    runtime: ClassifyRuntime,
    counted: Counted,
) -> None:
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(1))
    pipeline.drain(runtime)
    assert counted.shown[:2] == [None, Loaded(bundle.name, "fake")]


def test_unpacking_gets_on_with_every_page_and_with_nothing_to_do(
    sessions: db.Sessions, blobs: LocalStore, batch: Batch, runtime: ClassifyRuntime, counted: Counted
) -> None:
    unpack.drain(runtime)
    assert counted.times == 1
    _store(sessions, blobs, batch)
    unpack.drain(runtime)
    assert counted.times >= 4, "a claim, an entry, a page, and nothing more"


def test_the_row_tells_when_progress_was_made_and_not_when_it_was_written(sessions: db.Sessions) -> None:
    present = Heartbeat(sessions, "w", Queue.CLASSIFY, every_seconds=0.1)

    def older_than_the_sign_of_life() -> float:
        found = pulse(sessions)
        return found.progressed_seconds - found.seen_seconds

    present.start()
    until(lambda: older_than_the_sign_of_life() > 0.5, seconds=20)
    until(lambda: present.note_progress() or older_than_the_sign_of_life() < 0.4, seconds=20)
    present.stop()


def test_a_row_that_was_taken_for_that_of_a_dead_process_comes_back(sessions: db.Sessions) -> None:
    present = Heartbeat(sessions, "w", Queue.CLASSIFY, every_seconds=0.1)
    present.start()
    db.transact(sessions, lambda session: session.execute(sa.delete(Worker)))
    named = sa.select(sa.func.count()).select_from(Worker).where(Worker.name == "w")
    until(lambda: db.read(sessions, lambda session: session.scalar(named)) == 1, seconds=20)
    present.stop()
    assert db.read(sessions, lambda session: session.scalar(named)) == 0


def test_the_row_tells_what_is_loaded(sessions: db.Sessions, bundle: bundles.Bundle) -> None:
    present = Heartbeat(sessions, "w", Queue.CLASSIFY, every_seconds=0.1)
    present.start(Loaded(bundle.name, "fake"))
    assert not pulse(sessions).loading
    present.show_loaded(None)
    until(lambda: pulse(sessions).loading, seconds=20)
    present.stop()


def test_images_wait_from_when_their_batch_was_touched_or_moved_last(sessions: db.Sessions, batch: Batch) -> None:
    assert waited(sessions, Queue.CLASSIFY) is None
    fakes.fill(sessions, batch, 2)
    update(sessions, Batch, touched_at=db.now(-100))
    assert waited(sessions, Queue.CLASSIFY) == pytest.approx(100, abs=5)
    update(sessions, Batch, measured_at=db.now(-50))
    assert waited(sessions, Queue.CLASSIFY) == pytest.approx(50, abs=5)
    update(sessions, Batch, measured_at=db.now(-150))
    assert waited(sessions, Queue.CLASSIFY) == pytest.approx(100, abs=5)
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    assert waited(sessions, Queue.CLASSIFY) is None


def test_retried_images_wait_from_then_on(sessions: db.Sessions, batch: Batch) -> None:
    fakes.fill(sessions, batch, 1)
    update(sessions, Batch, touched_at=db.now(-100), queued=0, failed=1)
    db.transact(sessions, lambda session: session.execute(sa.text("UPDATE image SET state = 'failed'")))
    db.transact(sessions, batches.retry, batch.id, by=OPERATOR)
    found = waited(sessions, Queue.CLASSIFY)
    assert found is not None and found < 50


def test_archives_wait_once_they_are_stored(sessions: db.Sessions, blobs: LocalStore, batch: Batch) -> None:
    assert waited(sessions, Queue.INTAKE) is None
    _store(sessions, blobs, batch)
    update(sessions, Archive, touched_at=db.now(-100))
    assert waited(sessions, Queue.INTAKE) == pytest.approx(100, abs=5)
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    assert waited(sessions, Queue.INTAKE) is None


@pytest.mark.parametrize(
    ("progressed", "waited_seconds", "loading", "expected"),
    [
        (50, 50, False, True),
        (40, 50, False, False),
        (50, 40, False, False),
        (50, None, False, False),
        (50, 50, True, False),
    ],
)
def test_a_worker_is_stalled_when_it_did_nothing_while_work_waited(
    settings: Settings, progressed: float, waited_seconds: float | None, loading: bool, expected: bool
) -> None:
    found = liveness.Pulse(Queue.CLASSIFY, seen_seconds=1, progressed_seconds=progressed, loading=loading)
    assert found.is_stalled(waited_seconds, settings) is expected


@pytest.mark.parametrize(("pid", "started", "expected"), [(42, 5, True), (43, 5, False), (42, 60, False)])
def test_a_watch_sees_its_own_child_and_no_row_of_a_process_that_had_the_pid_before(
    sessions: db.Sessions,
    settings: Settings,
    database_url: str,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    pid: int,
    started: float,
    expected: bool,
) -> None:
    monkeypatch.setattr(watchdog, "active_children", lambda: [SimpleNamespace(pid=42)])
    row = {"name": heartbeat.make_name(Queue.CLASSIFY, pid), "queue": "classify", "seen_at": db.now()}
    row |= {"started_at": db.now(-started), "progressed_at": db.now(-1)}
    db.transact(sessions, lambda session: session.execute(sa.insert(Worker).values(**row)))
    placed = settings.model_copy(update={"database_url": database_url})
    observer = watchdog.Observer(placed, Queue.CLASSIFY, started=time.monotonic() - 30)
    observation = observer.observe()
    observer._started += 3600  # the monotonic clock lost an hour, as when the machine slept
    later = observer.observe()
    observer.close()
    assert (observation.progressed_seconds is not None) is (later.progressed_seconds is not None) is expected
    assert not observation.waiting and not observation.reachable


def _store(sessions: db.Sessions, blobs: LocalStore, batch: Batch) -> None:
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    with blobs.receive() as file:
        file.write(samples.archive({"a.jpg": samples.jpeg()}))
        file.finish()
        archives.keep(sessions, blobs, archive_id, file)
        db.transact(sessions, archives.store, archive_id, file)
