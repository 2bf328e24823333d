"""Settings that contradict each other are refused."""

import pydantic
import pytest

from dermq.settings import Settings


def test_a_worker_that_the_reaper_wakes_must_not_count_as_stalled_before() -> None:
    with pytest.raises(pydantic.ValidationError, match="more than 20 is accepted"):
        Settings(stalled_seconds=20, reaper_seconds=15, worker_seen_seconds=5)
    assert Settings(stalled_seconds=21, reaper_seconds=15, worker_seen_seconds=5).stalled_seconds == 21
