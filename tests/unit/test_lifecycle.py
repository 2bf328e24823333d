"""The moves between states."""

from datetime import UTC, datetime

import pytest

from dermq import lifecycle
from dermq.lifecycle import BatchState, ImageState

NOW = datetime.now(UTC)


def test_done_is_final() -> None:
    with pytest.raises(ValueError, match="There is no move from done to queued"):
        lifecycle.check(lifecycle.IMAGE_MOVES, ImageState.DONE, ImageState.QUEUED)


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
    assert lifecycle.batch_state(**known) is state  # type: ignore[arg-type]
