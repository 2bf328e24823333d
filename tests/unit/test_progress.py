"""How fast a batch gets on, at times that a test chooses."""

from datetime import UTC, datetime, timedelta

import pytest

from dermq import progress
from dermq.models import Batch
from dermq.progress import SecondsLeft

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def batch(queued: int = 0) -> Batch:
    """A batch that is measured for the first time at noon."""
    found = Batch(queued=queued, running=0, done=0, failed=0, measured_images=0)
    progress.measure(found, NOON)
    return found


def ended(found: Batch, seconds: float, *, done: int = 0, failed: int = 0) -> Batch:
    """So many more images end, so many seconds after noon."""
    found.done += done
    found.failed += failed
    progress.measure(found, NOON + timedelta(seconds=seconds))
    return found


def rates(found: Batch) -> tuple[float | None, float | None]:
    return found.rate_recent, found.rate_smoothed


def test_the_first_measurement_knows_no_rate() -> None:
    found = batch()
    assert found.measured_at == NOON and rates(found) == (None, None)


def test_done_and_failed_images_count_alike() -> None:
    found = ended(batch(), 2, done=15, failed=6)
    assert rates(found) == (10.5, 10.5)
    assert (found.measured_at, found.measured_images) == (NOON + timedelta(seconds=2), 21)


def test_a_rate_is_measured_over_a_second_at_least() -> None:
    found = ended(batch(), 0.9, done=100)
    assert rates(found) == (None, None)
    assert rates(ended(found, 1.0, done=100)) == (200, 200)


def test_the_smoothed_rate_keeps_four_fifths_of_the_past() -> None:
    found = ended(ended(batch(), 1, done=10), 2, done=20)
    assert rates(found) == pytest.approx((20, 0.8 * 10 + 0.2 * 20))


def test_a_rate_of_nothing_is_remembered() -> None:
    found = ended(ended(ended(batch(), 1), 2), 3, done=10)
    assert rates(found) == pytest.approx((10, 2))


@pytest.mark.parametrize(("pause", "expected"), [(120.0, (5, 9)), (120.1, (None, None))])
def test_after_a_long_pause_the_rate_is_measured_afresh(pause: float, expected: tuple[float | None, ...]) -> None:
    found = ended(ended(batch(), 1, done=10), 1 + pause, done=600)
    assert rates(found) == pytest.approx(expected)
    assert rates(ended(found, 3 + pause, done=6))[0] == 3, "counted from the end of the pause"


def test_after_a_retry_the_rate_is_measured_afresh() -> None:
    found = ended(batch(), 1, done=5, failed=5)
    found.failed = 0
    assert rates(ended(found, 2)) == (None, None)
    assert found.measured_images == 5


def test_the_time_left_lies_between_both_rates() -> None:
    found = batch(queued=90)
    found.running, found.rate_recent, found.rate_smoothed = 11, 10.0, 20.0
    assert progress.seconds_left(found) == SecondsLeft(low=6, high=11)


@pytest.mark.parametrize(("waiting", "rate"), [(0, 10.0), (10, None), (10, 0.0)])
def test_no_time_left_is_told_when_nothing_waits_or_nothing_moves(waiting: int, rate: float | None) -> None:
    found = batch(queued=waiting)
    found.rate_recent = found.rate_smoothed = rate
    assert progress.seconds_left(found) is None
