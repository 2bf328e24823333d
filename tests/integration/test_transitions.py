"""Moves of images and archives on both databases: only where the table of moves leads, and always counted."""

import itertools
import uuid
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import batches, bundles, db, transitions
from dermq.lifecycle import ArchiveState, ImageState
from dermq.models import Archive, Batch, Image, Lab
from dermq.principals import OPERATOR
from dermq.transitions import Move
from tests import fakes

QUEUED, RUNNING, DONE, FAILED, CANCELLED = ImageState


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    found = fakes.create(sessions, lab, bundle)
    fakes.fill(sessions, found, 4)
    return found


def move(sessions: db.Sessions, images: Sequence[Image], *states: ImageState | None) -> None:
    """Move images from state to state, each move in a transaction of its own."""
    for source, target in itertools.pairwise(states):
        assert source is not None
        db.transact(sessions, transitions.move_images, [Move(images, source, target)])


def counts(sessions: db.Sessions, batch: Batch) -> tuple[int, ...]:
    found = fakes.get(sessions, batch)
    return found.received, found.queued, found.running, found.done, found.failed, found.cancelled


def archive(sessions: db.Sessions, batch: Batch, *states: ArchiveState) -> uuid.UUID:
    """A new archive that goes through these states."""

    def work(session: Session) -> uuid.UUID:
        added = transitions.add_archive(session, batches.lock(session, batch.id), uuid.uuid4())
        session.flush()
        for state in states:
            transitions.move_archive(session, added, state)
        return added.id

    return db.transact(sessions, work)


def test_a_move_changes_rows_and_counts(sessions: db.Sessions, batch: Batch) -> None:
    first, second, *_ = fakes.images(sessions, batch)
    move(sessions, [first, second], QUEUED, RUNNING)
    assert counts(sessions, batch) == (4, 2, 2, 0, 0, 0)
    db.transact(sessions, transitions.move_images, [Move([first], RUNNING, DONE), Move([second], RUNNING, FAILED)])
    assert counts(sessions, batch) == (4, 2, 0, 1, 1, 0)
    assert [image.state for image in fakes.images(sessions, batch)] == [DONE, FAILED, QUEUED, QUEUED]


def test_every_move_is_shown_to_who_polls(sessions: db.Sessions, batch: Batch) -> None:
    before = fakes.get(sessions, batch).version
    move(sessions, fakes.images(sessions, batch)[:1], QUEUED, RUNNING)
    assert fakes.get(sessions, batch).version > before


def test_a_deleted_image_is_no_longer_counted(sessions: db.Sessions, batch: Batch) -> None:
    first, second, *_ = fakes.images(sessions, batch)
    move(sessions, [first], QUEUED, RUNNING, DONE)
    db.transact(sessions, transitions.delete_images, [first, second])
    assert counts(sessions, batch) == (2, 2, 0, 0, 0, 0)
    assert len(fakes.images(sessions, batch)) == 2


@pytest.mark.parametrize(("source", "target"), [(QUEUED, DONE), (QUEUED, FAILED), (QUEUED, QUEUED)])
def test_no_image_moves_past_the_table(
    sessions: db.Sessions, batch: Batch, source: ImageState, target: ImageState
) -> None:
    with pytest.raises(ValueError, match=f"no move from {source} to {target}"):
        move(sessions, fakes.images(sessions, batch), source, target)
    assert counts(sessions, batch) == (4, 4, 0, 0, 0, 0)


def test_an_image_in_another_state_is_not_moved_and_nothing_is_counted(sessions: db.Sessions, batch: Batch) -> None:
    images = fakes.images(sessions, batch)
    move(sessions, images[:1], QUEUED, RUNNING)
    with pytest.raises(ValueError, match="3 of 4 rows of image were queued"):
        move(sessions, images, QUEUED, CANCELLED)
    assert counts(sessions, batch) == (4, 3, 1, 0, 0, 0)
    assert [image.state for image in fakes.images(sessions, batch)] == [RUNNING, QUEUED, QUEUED, QUEUED]


def test_a_batch_finishes_with_its_last_image_and_opens_again(sessions: db.Sessions, batch: Batch) -> None:
    images = fakes.images(sessions, batch)
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    move(sessions, images, QUEUED, RUNNING)
    move(sessions, images[1:], RUNNING, DONE)
    assert fakes.get(sessions, batch).finished_at is None
    move(sessions, images[:1], RUNNING, FAILED)
    assert fakes.get(sessions, batch).finished_at is not None
    move(sessions, images[:1], FAILED, QUEUED)
    assert fakes.get(sessions, batch).finished_at is None


def test_an_open_archive_keeps_its_batch_from_finishing(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    empty = fakes.create(sessions, lab, bundle)
    stored = archive(sessions, empty, ArchiveState.STORED)
    db.transact(sessions, batches.seal, empty.id, by=OPERATOR)
    found = fakes.get(sessions, empty)
    assert (found.archives_open, found.finished_at) == (1, None)

    def close(session: Session) -> None:
        transitions.move_archive(session, session.get_one(Archive, stored), ArchiveState.CANCELLED)

    db.transact(sessions, close)
    found = fakes.get(sessions, empty)
    assert found.archives_open == 0 and found.finished_at is not None


def test_no_archive_moves_past_the_table(sessions: db.Sessions, batch: Batch) -> None:
    with pytest.raises(ValueError, match="no move from receiving to done"):
        archive(sessions, batch, ArchiveState.DONE)
    with pytest.raises(ValueError, match="no move from failed to stored"):
        archive(sessions, batch, ArchiveState.FAILED, ArchiveState.STORED)
    assert fakes.get(sessions, batch).archives_open == 0


def test_an_archive_that_somebody_else_moved_is_not_moved(sessions: db.Sessions, batch: Batch) -> None:
    stored = archive(sessions, batch, ArchiveState.STORED)

    def work(session: Session) -> None:
        found = session.get_one(Archive, stored)
        behind = sa.update(Archive).where(Archive.id == stored).values(state=ArchiveState.CANCELLED)
        session.execute(behind, execution_options={"synchronize_session": False})
        transitions.move_archive(session, found, ArchiveState.UNPACKING)

    with pytest.raises(ValueError, match="0 of 1 rows of archive were stored"):
        db.transact(sessions, work)
