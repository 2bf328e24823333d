"""Archives of different labs take turns in the fair order of labs, which their unpacking is charged to."""

import pytest

from dermq import archives, batches, bundles, db, errors, labs
from dermq.models import Lab
from dermq.queue import archive_claims, fairness
from dermq.queue.archive_claims import SLICE_SECONDS, ArchiveLease
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import fakes, samples
from tests.integration.test_unpack import store
from worker.classify.runtime import ClassifyRuntime

SLICE_IMAGES = SLICE_SECONDS * fairness.SECOND_IMAGES


@pytest.fixture
def runtime(sessions: db.Sessions, blobs: LocalStore, settings: Settings, bundle: bundles.Bundle) -> ClassifyRuntime:
    return fakes.runtime(settings, sessions, blobs, bundle, fakes.Engine())


def add(runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle, count: int = 1) -> None:
    batch = fakes.create(runtime.sessions, lab, bundle)
    for seed in range(count):
        store(runtime, batch, samples.archive({f"{seed}.jpg": samples.jpeg(seed)}))


def take(runtime: ClassifyRuntime) -> ArchiveLease | None:
    return db.transact(runtime.sessions, archive_claims.take, "w", 60.0)


def put_back(runtime: ClassifyRuntime, lease: ArchiveLease, seconds: float) -> None:
    db.transact(runtime.sessions, archive_claims.end, lease, unpacked=False, seconds=seconds)


def tag(runtime: ClassifyRuntime, lab: Lab) -> float:
    found = db.read(runtime.sessions, lambda session: session.get(Lab, lab.id))
    assert found is not None
    return found.tag


def turns(runtime: ClassifyRuntime, count: int, seconds: float = SLICE_SECONDS) -> list[int]:
    """Take and put back so many turns, each of so many seconds; return the labs that had them."""
    had = []
    for _ in range(count):
        lease = take(runtime)
        assert lease is not None
        had.append(lease.lab_id)
        put_back(runtime, lease, seconds)
    return had


def test_a_lab_with_many_archives_lets_another_lab_have_every_second_turn(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    add(runtime, lab, bundle, 5)
    assert turns(runtime, 3) == [lab.id] * 3
    other = db.transact(runtime.sessions, labs.add, "other")
    add(runtime, other, bundle)
    assert turns(runtime, 4) == [other.id, lab.id, other.id, lab.id]


def test_turns_go_by_weight(runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle) -> None:
    heavy = db.transact(runtime.sessions, lambda session: labs.add(session, "heavy", weight=3.0))
    for each in (lab, heavy):
        add(runtime, each, bundle)
    had = turns(runtime, 40)
    assert had.count(heavy.id) == 30


def test_what_is_left_of_a_slice_is_given_back(runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle) -> None:
    add(runtime, lab, bundle)
    before = tag(runtime, lab)
    lease = take(runtime)
    assert lease is not None and tag(runtime, lab) == before + SLICE_IMAGES
    put_back(runtime, lease, 1.0)
    assert tag(runtime, lab) == pytest.approx(before + fairness.SECOND_IMAGES)


def test_two_workers_do_not_both_take_the_archives_of_one_lab(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    other = db.transact(runtime.sessions, labs.add, "other")
    for each in (lab, other):
        add(runtime, each, bundle, 2)
    first, second = take(runtime), take(runtime)
    assert first is not None and second is not None
    assert {first.lab_id, second.lab_id} == {lab.id, other.id}


def test_unpacking_and_images_are_charged_to_the_same_tag(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    """Given a lab whose images were classified meanwhile, another lab's archive comes first."""
    other = db.transact(runtime.sessions, labs.add, "other")
    for each in (lab, other):
        add(runtime, each, bundle)
    db.transact(runtime.sessions, lambda session: setattr(session.get(Lab, lab.id), "tag", 1_000.0))
    assert turns(runtime, 3) == [other.id] * 3


def test_an_archive_that_was_put_back_for_a_fault_comes_after_all_others(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    add(runtime, lab, bundle, 2)
    first = take(runtime)
    assert first is not None
    fault = errors.OutOfSpace("storage_full", "full")
    db.transact(runtime.sessions, archive_claims.end, first, unpacked=False, seconds=0.0, error=fault)
    second = db.transact(runtime.sessions, archive_claims.take, "w", 60.0, [first.archive_id])
    assert second is not None and second.archive_id != first.archive_id


def test_an_archive_that_is_being_received_has_no_turn(
    runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle
) -> None:
    batch = fakes.create(runtime.sessions, lab, bundle)
    db.transact(runtime.sessions, archives.begin, batch.id, batches.make_id())
    assert take(runtime) is None
