"""Leases of archives: one that is lost changes nothing any more, and an archive that is lost too often fails."""

import pytest
import sqlalchemy as sa

from dermq import bundles, db, errors
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Claim, Lab
from dermq.queue import archive_claims, claims
from dermq.queue.archive_claims import ArchiveLease
from dermq.queue.leases import MOST_LOSSES, LeaseLost
from tests.integration.test_archive_turns import add, put_back, runtime, take
from worker.classify.runtime import ClassifyRuntime

__all__ = ["runtime"]


@pytest.fixture
def lease(runtime: ClassifyRuntime, lab: Lab, bundle: bundles.Bundle) -> ArchiveLease:
    """The lease of the only archive."""
    add(runtime, lab, bundle)
    found = take(runtime)
    assert found is not None
    return found


def lose(runtime: ClassifyRuntime, lease: ArchiveLease) -> Archive:
    """Give back a lease as that of a worker that died, and return the archive."""
    db.transact(runtime.sessions, claims.give_back, lease.token, lost=True)
    return read(runtime, lease)


def read(runtime: ClassifyRuntime, lease: ArchiveLease) -> Archive:
    found = db.read(runtime.sessions, lambda session: session.get(Archive, lease.archive_id))
    assert found is not None
    return found


def count_claims(runtime: ClassifyRuntime) -> int:
    return db.read(runtime.sessions, lambda session: session.scalar(sa.select(sa.func.count()).select_from(Claim))) or 0


def test_a_lost_archive_waits_for_another_worker(runtime: ClassifyRuntime, lease: ArchiveLease) -> None:
    archive = lose(runtime, lease)
    assert (archive.state, archive.losses, archive.claim_token) == (ArchiveState.STORED, 1, None)
    again = take(runtime)
    assert again is not None and again.archive_id == lease.archive_id and again.token != lease.token


def test_an_archive_that_is_lost_too_often_fails(runtime: ClassifyRuntime, lease: ArchiveLease) -> None:
    for losses in range(1, MOST_LOSSES):
        assert lose(runtime, lease).losses == losses
        again = take(runtime)
        assert again is not None
        lease = again
    archive = lose(runtime, lease)
    assert (archive.state, archive.error_code) == (ArchiveState.FAILED, "worker_lost")
    assert take(runtime) is None and count_claims(runtime) == 0


def test_to_put_an_archive_back_is_no_loss(runtime: ClassifyRuntime, lease: ArchiveLease) -> None:
    put_back(runtime, lease, seconds=1)
    archive = read(runtime, lease)
    assert (archive.state, archive.losses, archive.claim_token) == (ArchiveState.STORED, 0, None)
    assert count_claims(runtime) == 0


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("error", [None, errors.Permanent("damaged", "It is damaged.")])
def test_who_lost_a_lease_changes_nothing_of_the_next_one(
    runtime: ClassifyRuntime, lease: ArchiveLease, unpacked: bool, error: errors.Permanent | None
) -> None:
    lose(runtime, lease)
    again = take(runtime)
    assert again is not None
    with pytest.raises(LeaseLost):
        db.transact(runtime.sessions, archive_claims.lock, lease)
    db.transact(runtime.sessions, archive_claims.end, lease, unpacked=unpacked, seconds=1, error=error)
    archive = read(runtime, lease)
    assert (archive.state, archive.claim_token) == (ArchiveState.UNPACKING, again.token)
    assert db.transact(runtime.sessions, archive_claims.lock, again).id == lease.archive_id


@pytest.mark.parametrize(
    ("unpacked", "error", "expected"),
    [
        (True, None, (ArchiveState.DONE, None)),
        (True, errors.Permanent("damaged", "It is damaged."), (ArchiveState.FAILED, "damaged")),
        (False, errors.Permanent("damaged", "It is damaged."), (ArchiveState.FAILED, "damaged")),
    ],
)
def test_an_archive_ends_as_its_worker_says(
    runtime: ClassifyRuntime,
    lease: ArchiveLease,
    unpacked: bool,
    error: errors.Permanent | None,
    expected: tuple[ArchiveState, str | None],
) -> None:
    db.transact(runtime.sessions, archive_claims.end, lease, unpacked=unpacked, seconds=1, error=error)
    archive = read(runtime, lease)
    assert (archive.state, archive.error_code) == expected
    assert archive.claim_token is None and count_claims(runtime) == 0 and take(runtime) is None
