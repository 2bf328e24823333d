"""Wrong sign-ins are slowed down by address."""

import pytest

from web import rates
from web.rates import FREE_ATTEMPTS, LONGEST_PAUSE_SECONDS, WrongSignIns


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wrong(clock: Clock) -> WrongSignIns:
    return WrongSignIns(clock)


def test_the_first_wrong_ones_cost_no_time(wrong: WrongSignIns) -> None:
    assert [wrong.note("a") for _ in range(FREE_ATTEMPTS)] == [0] * FREE_ATTEMPTS


def test_each_further_one_costs_more_time(wrong: WrongSignIns, clock: Clock) -> None:
    for _ in range(FREE_ATTEMPTS):
        wrong.note("a")
    pauses = []
    for _ in range(9):
        pauses.append(wrong.note("a"))
        clock.now += pauses[-1]
        assert wrong.note("a") == 0  # it waited as long as told
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(pauses) == LONGEST_PAUSE_SECONDS


def test_asking_too_early_does_not_make_the_pause_longer(wrong: WrongSignIns) -> None:
    for _ in range(FREE_ATTEMPTS):
        wrong.note("a")
    assert {wrong.note("a") for _ in range(100)} == {1}


def test_another_address_is_not_slowed_down(wrong: WrongSignIns) -> None:
    for _ in range(50):
        wrong.note("a")
    assert wrong.note("b") == 0


def test_a_quiet_address_begins_anew(wrong: WrongSignIns, clock: Clock) -> None:
    for _ in range(50):
        wrong.note("a")
    clock.now += rates.FORGET_SECONDS + 1
    assert [wrong.note("a") for _ in range(FREE_ATTEMPTS)] == [0] * FREE_ATTEMPTS


def test_memory_stays_bounded(wrong: WrongSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MOST_ADDRESSES", 10)
    for at in range(100):
        wrong.note(str(at))
    assert len(wrong._by_address) == 10
