"""The moves between states."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dermq import lifecycle
from dermq.lifecycle import ArchiveState, BatchState, ImageState

NOW = datetime.now(UTC)


def test_done_is_final() -> None:
    with pytest.raises(ValueError, match="There is no move from done to queued"):
        lifecycle.check(lifecycle.IMAGE_MOVES, ImageState.DONE, ImageState.QUEUED)


@pytest.mark.parametrize("moves", [lifecycle.IMAGE_MOVES, lifecycle.ARCHIVE_MOVES], ids=["image", "archive"])
def test_rows_are_born_in_one_state_and_may_be_deleted_in_any(moves: lifecycle.Moves[Any]) -> None:
    assert len(moves[None]) == 1
    assert all(None in targets for state, targets in moves.items() if state is not None)


def test_only_a_retry_leaves_a_final_state() -> None:
    final = {ImageState.DONE, ImageState.FAILED, ImageState.CANCELLED}
    left = {(state, to) for state in final for to in lifecycle.IMAGE_MOVES[state] if to is not None}
    assert left == {(ImageState.FAILED, ImageState.QUEUED)}
    closed = set(ArchiveState) - lifecycle.OPEN_ARCHIVE
    assert all(lifecycle.ARCHIVE_MOVES[state] == {None} for state in closed)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, BatchState.OPEN),
        ({"sealed_at": NOW}, BatchState.QUEUED),
        ({"sealed_at": NOW, "has_run": True}, BatchState.RUNNING),
        ({"sealed_at": NOW, "finished_at": NOW, "has_run": True}, BatchState.FINISHED),
        ({"sealed_at": NOW, "finished_at": NOW, "cancelled_at": NOW}, BatchState.CANCELLED),
    ],
)
def test_a_batch_is_in_the_first_state_that_holds(facts: dict[str, object], state: BatchState) -> None:
    known = {"cancelled_at": None, "sealed_at": None, "finished_at": None, "has_run": False, **facts}
    assert lifecycle.find_batch_state(**known) is state  # type: ignore[arg-type]
