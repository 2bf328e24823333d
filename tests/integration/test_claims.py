"""Claims on both databases: exact counts, fair order, fencing, suspects."""

import threading
import uuid

import numpy as np
import pytest
import sqlalchemy as sa

from dermq import batches, bundles, db, errors, labs
from dermq.models import Batch, Claim, Lab, QueueRow
from dermq.principals import OPERATOR
from dermq.queue import claims, leases
from dermq.queue.claims import Claimant, Lease
from dermq.queue.outcomes import Failed, Outcome, Provenance, make_prediction
from tests import fakes


@pytest.fixture
def claimant(sessions: db.Sessions, bundle: bundles.Bundle) -> Claimant:
    return Claimant("w", db.transact(sessions, batches.ensure_bundle_row, bundle).id, lease_seconds=60)


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


def take(sessions: db.Sessions, claimant: Claimant, most: int = 64) -> Lease:
    lease = db.transact(sessions, claims.take, claimant, most)
    assert lease is not None
    return lease


def done(lease: Lease, bundle_id: int) -> list[Outcome]:
    provenance = Provenance(bundle_id, "fake", "w", 0.0)
    uniform = np.full(7, 1 / 7, np.float32)
    return [make_prediction(image.id, uniform, -1.0, 1.0, provenance, (600, 450)) for image in lease.images]


def counts(batch: Batch) -> tuple[int, ...]:
    return batch.received, batch.queued, batch.running, batch.done, batch.failed, batch.cancelled


def lose(sessions: db.Sessions, lease: Lease) -> None:
    """Let a lease expire and expire its claim as the reaper does."""
    past = sa.update(Claim).where(Claim.token == lease.token).values(expires_at=db.now(-1))
    db.transact(sessions, lambda session: session.execute(past))
    assert lease.token in db.read(sessions, claims.list_expired, 10)
    assert db.transact(sessions, claims.expire, lease.token)


def test_images_are_claimed_in_order_of_position(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 10)
    lease = take(sessions, claimant, 8)
    assert [image.id for image in lease.images] == [image.id for image in fakes.images(sessions, batch)[:8]]
    assert counts(fakes.get(sessions, batch)) == (10, 2, 8, 0, 0, 0)


def test_recording_moves_images_once(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 3)
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    lease = take(sessions, claimant)
    first, *rest = done(lease, claimant.bundle_id)
    db.transact(sessions, claims.record, lease.token, [Failed(first.image_id, "damaged", "damaged"), *rest])
    with pytest.raises(leases.LeaseLost):
        db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id))
    found = fakes.get(sessions, batch)
    assert counts(found) == (3, 0, 0, 2, 1, 0) and found.finished_at is not None
    assert fakes.predictions(sessions, batch.id) == 2
    assert fakes.images(sessions, batch)[0].error_code == "damaged"


def test_a_lost_lease_writes_nothing(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 4)
    lease = take(sessions, claimant)
    lose(sessions, lease)
    with pytest.raises(leases.LeaseLost):
        db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id))
    assert counts(fakes.get(sessions, batch)) == (4, 4, 0, 0, 0, 0)
    assert fakes.predictions(sessions, batch.id) == 0
    assert not db.transact(sessions, leases.renew, lease.token, 60)


def test_a_renewed_lease_does_not_expire(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 1)
    lease = take(sessions, Claimant("w", claimant.bundle_id, lease_seconds=-1))
    assert db.transact(sessions, leases.renew, lease.token, 60)
    assert not db.transact(sessions, claims.expire, lease.token)


def test_suspects_are_claimed_alone_and_fail_after_three_losses(
    sessions: db.Sessions, batch: Batch, claimant: Claimant
) -> None:
    fakes.fill(sessions, batch, 2)
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    lose(sessions, take(sessions, claimant))
    assert db.transact(sessions, claims.take, claimant, 64) is None, "suspects are left out of ordinary claims"
    poison = fakes.images(sessions, batch)[0].id
    for _ in range(4):
        lease = db.transact(sessions, claims.take_suspect, claimant)
        assert lease is not None and lease.alone and len(lease.images) == 1
        if lease.images[0].id == poison:
            lose(sessions, lease)
        else:
            db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id))
    found = fakes.get(sessions, batch)
    assert counts(found) == (2, 0, 0, 1, 1, 0) and found.finished_at is not None
    assert fakes.images(sessions, batch)[0].error_code == "worker_lost"


def test_suspects_are_charged_to_their_labs_which_take_turns(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    other = db.transact(sessions, labs.add, "other", weight=2.0)
    first, second = (fakes.create(sessions, owner, bundle) for owner in (lab, other))
    for batch in (first, second):
        fakes.fill(sessions, batch, 4)
        lose(sessions, take(sessions, claimant))
    order = []
    for _ in range(6):
        lease = db.transact(sessions, claims.take_suspect, claimant)
        assert lease is not None
        order.append(lease.images[0].batch_id)
        db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id))
    assert order == [second.id] * 4 + [first.id] * 2, "who has had less for its weight comes first"
    tags = {row.id: row.tag for row in db.read(sessions, lambda session: session.scalars(sa.select(Lab)).all())}
    assert (tags[lab.id], tags[other.id]) == (6.0, 4.0), "the ordinary four, and each suspect, by weight"


def test_a_suspect_takes_no_place_of_a_lab_that_is_before_its_own(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    ahead, other = fakes.create(sessions, lab, bundle), db.transact(sessions, labs.add, "other")
    fakes.fill(sessions, ahead, 8)
    lose(sessions, take(sessions, claimant))
    behind = fakes.create(sessions, other, bundle)
    fakes.fill(sessions, behind, 100)
    place = sa.update(Lab).where(Lab.id == lab.id).values(tag=50.0)
    db.transact(sessions, lambda session: session.execute(place))
    db.transact(sessions, lambda session: session.execute(sa.update(QueueRow).values(served=2.0)))
    for _ in range(2):
        lease = db.transact(sessions, claims.take_suspect, claimant)
        assert lease is not None and lease.images[0].batch_id == ahead.id
    tags = {row.id: row.tag for row in db.read(sessions, lambda session: session.scalars(sa.select(Lab)).all())}
    assert tags[lab.id] == 52.0, "it is charged for each"
    assert db.read(sessions, lambda session: session.scalar(sa.select(QueueRow.served))) == 2.0
    lease = db.transact(sessions, claims.take, claimant, 40)
    assert lease is not None and {image.batch_id for image in lease.images} == {behind.id}


def test_what_suspects_were_given_is_no_credit_for_a_lab_that_was_idle(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    batch = fakes.create(sessions, lab, bundle)
    fakes.fill(sessions, batch, 4)
    lose(sessions, take(sessions, claimant))
    for served in (4.0, 5.0):
        lease = db.transact(sessions, claims.take_suspect, claimant)
        assert lease is not None
        assert db.read(sessions, lambda session: session.scalar(sa.select(QueueRow.served))) == served
    idle = db.transact(sessions, labs.add, "idle")
    fakes.fill(sessions, fakes.create(sessions, idle, bundle), 1)
    take(sessions, claimant)
    tags = {row.id: row.tag for row in db.read(sessions, lambda session: session.scalars(sa.select(Lab)).all())}
    assert (tags[lab.id], tags[idle.id]) == (6.0, 6.0), "it starts where the suspects were served"


def test_bundles_wait_in_the_fair_order_of_their_labs(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    older = bundles.Bundle(bundle.path, bundle.card.model_copy(update={"version": "old"}), "f" * 64)
    other = db.transact(sessions, labs.add, "other")
    for owner, wanted in ((lab, bundle), (other, older)):
        fakes.fill(sessions, fakes.create(sessions, owner, wanted), 100)
    assert db.read(sessions, claims.list_waiting_bundles) == [bundle.sha256, older.sha256], "the oldest batch first"
    take(sessions, claimant, 64)
    assert db.read(sessions, claims.list_waiting_bundles) == [older.sha256, bundle.sha256], (
        "the other lab is behind now"
    )


def test_giving_back_charges_nothing(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 2)
    lease = take(sessions, claimant)
    db.transact(sessions, claims.give_back, lease.token)
    db.transact(sessions, claims.give_back, lease.token)
    assert counts(fakes.get(sessions, batch)) == (2, 2, 0, 0, 0, 0)
    assert not any(image.suspect for image in fakes.images(sessions, batch))


def test_cancel_lets_what_runs_be_recorded(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 5)
    lease = take(sessions, claimant, 4)
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    db.transact(sessions, batches.sweep, batch.id)
    assert db.transact(sessions, claims.take, claimant, 4) is None
    db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id)[:3])
    db.transact(sessions, claims.give_back, lease.token)
    found = fakes.get(sessions, batch)
    assert counts(found) == (5, 0, 0, 3, 0, 2) and found.finished_at is not None


def test_retry_queues_failed_images_only(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 3)
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    lease = take(sessions, claimant)
    first, *rest = done(lease, claimant.bundle_id)
    db.transact(sessions, claims.record, lease.token, [Failed(first.image_id, "x", "y"), *rest])
    assert db.transact(sessions, batches.retry, batch.id, by=OPERATOR) == 1
    found = fakes.get(sessions, batch)
    assert counts(found) == (3, 1, 0, 2, 0, 0) and found.finished_at is None
    with pytest.raises(errors.Conflict, match="nothing to retry"):
        db.transact(sessions, batches.retry, batch.id, by=OPERATOR)


def test_two_labs_share_a_claim(
    sessions: db.Sessions, batch: Batch, claimant: Claimant, bundle: bundles.Bundle
) -> None:
    fakes.fill(sessions, batch, 1000)
    for _ in range(5):
        take(sessions, claimant)
    other = fakes.create(sessions, db.transact(sessions, labs.add, "other"), bundle)
    fakes.fill(sessions, other, 10)
    lease = take(sessions, claimant)
    assert sum(image.batch_id == other.id for image in lease.images) == 10
    assert len(lease.images) == 64


def test_four_workers_claim_every_image_once(sessions: db.Sessions, batch: Batch, claimant: Claimant) -> None:
    fakes.fill(sessions, batch, 200)
    taken: list[int] = []

    def work() -> None:
        while (lease := db.transact(sessions, claims.take, claimant, 16)) is not None:
            taken.extend(image.id for image in lease.images)
            db.transact(sessions, claims.record, lease.token, done(lease, claimant.bundle_id))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 200
    assert counts(fakes.get(sessions, batch)) == (200, 0, 0, 200, 0, 0)
    left = db.read(sessions, lambda session: session.scalar(sa.select(sa.func.count()).select_from(Claim)))
    assert left == 0


def test_an_unknown_claim_is_given_back_in_peace(sessions: db.Sessions) -> None:
    db.transact(sessions, claims.give_back, uuid.uuid4())
    assert not db.transact(sessions, claims.expire, uuid.uuid4())


def test_a_lab_left_out_gets_no_turn_and_the_others_do(
    sessions: db.Sessions, batch: Batch, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    other = fakes.create(sessions, db.transact(sessions, labs.add, "other"), bundle)
    fakes.fill(sessions, batch, 10)
    fakes.fill(sessions, other, 10)
    lease = db.transact(sessions, claims.take, claimant, 64, without={lab.id})
    assert lease is not None and {image.lab_id for image in lease.images} == {other.lab_id}
    assert len(lease.images) == 10
    assert db.transact(sessions, claims.take, claimant, 64, without={lab.id}) is None
    assert len(take(sessions, claimant).images) == 10


def test_seconds_of_decoding_are_charged_like_images(
    sessions: db.Sessions, batch: Batch, lab: Lab, bundle: bundles.Bundle, claimant: Claimant
) -> None:
    other = fakes.create(sessions, db.transact(sessions, labs.add, "other"), bundle)
    fakes.fill(sessions, batch, 400)
    fakes.fill(sessions, other, 400)
    db.transact(sessions, claims.charge, {lab.id: 2.0})
    assert db.read(sessions, lambda session: session.get_one(Lab, lab.id)).tag == 2 * claims.IMAGES_A_SECOND
    taken = [image.lab_id for _ in range(3) for image in take(sessions, claimant).images]
    assert set(taken) == {other.lab_id}, "the other lab gets the images that the seconds are worth first"
    lease = db.transact(sessions, claims.take, claimant, 64, spent={other.lab_id: 5.0})
    assert lease is not None and {image.lab_id for image in lease.images} == {lab.id}
    assert all(image.lab_id == lab.id for image in lease.images)
