"""When a worker counts as stalled, by a clock of the test's own."""

from collections.abc import Iterable

import pytest

from worker.process.celery_app import START_SECONDS
from worker.process.watchdog import Action, Observation, Watchdog

STALLED_SECONDS = 40


def actions(observations: Iterable[Observation]) -> list[Action]:
    watchdog = Watchdog(STALLED_SECONDS, at=0.0)
    return [watchdog.judge(observation) for observation in observations]


def observations(
    until: int,
    *,
    waiting: bool = True,
    reachable: bool = True,
    progressed_at: float | None = 0.0,
    loading: bool = False,
) -> list[Observation]:
    """An observation every four seconds."""
    return [
        Observation(at, waiting, reachable, None if progressed_at is None else at - progressed_at, loading)
        for at in range(4, until + 1, 4)
    ]


def test_work_that_waits_on_a_worker_that_does_not_get_on_is_a_stall() -> None:
    assert actions(observations(40)) == [Action.NONE] * 4 + [Action.WAKE] * 5 + [Action.END]


def test_time_without_work_does_not_count() -> None:
    idle = observations(200, waiting=False)
    assert set(actions([*idle, Observation(204, True, True, 204)])) == {Action.NONE}
    assert actions([*idle, *(Observation(at, True, True, at) for at in range(204, 241, 4))])[-1] is Action.END


def test_progress_starts_the_count_anew() -> None:
    assert actions(observations(68, progressed_at=30.0))[-2:] == [Action.WAKE, Action.WAKE]
    assert actions(observations(72, progressed_at=30.0))[-1] is Action.END


def test_a_count_begins_when_redis_answers_again() -> None:
    away = observations(200, reachable=False)
    back = [Observation(at, True, True, at) for at in range(204, 241, 4)]
    found = actions([*away, *back])
    assert set(found[: len(away)]) == {Action.NONE}
    assert Action.END not in found[:-1] and found[-1] is Action.END


def test_a_worker_that_was_frozen_itself_gets_its_time() -> None:
    frozen = [*observations(8), Observation(100, True, True, 100)]
    assert actions(frozen)[-1] is Action.NONE
    assert actions([*frozen, *(Observation(at, True, True, at) for at in range(104, 141, 4))])[-1] is Action.END


@pytest.mark.parametrize("change", [{"progressed_at": None}, {"loading": True}], ids=["none appeared", "loading"])
def test_a_child_has_its_time_to_load(change: dict[str, object]) -> None:
    within = observations(int(START_SECONDS) - 4, **change)  # type: ignore[arg-type]
    assert Action.END not in actions(within)
    assert actions(observations(int(START_SECONDS), **change))[-1] is Action.END  # type: ignore[arg-type]


def test_a_child_that_is_replaced_has_its_time_from_when_the_one_before_got_on() -> None:
    gone = [Observation(at, True, True, None) for at in range(240, 304, 4)]
    assert Action.END not in actions([*observations(236, progressed_at=236.0), *gone])
