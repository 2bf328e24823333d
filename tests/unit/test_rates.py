"""Wrong sign-ins are slowed down by address."""

import pytest

from web import rates
from web.rates import FREE_ATTEMPTS, LONGEST_PAUSE_SECONDS, Requests, WrongSignIns


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


def test_requests_over_the_limit_wait_as_long_as_told_and_no_longer(clock: Clock) -> None:
    requests = Requests(clock)
    for most in (1, 2, 3, 100):
        for _ in range(300):
            wait = requests.take(most, most)
            if wait:
                clock.now += wait - 1.01
                assert requests.take(most, most) > 0
                clock.now += 1.02
                assert requests.take(most, most) == 0


@pytest.mark.parametrize("pause", [0.0, 0.3, 1.0, 7.0])
def test_no_minute_has_many_more_requests_than_allowed(clock: Clock, pause: float) -> None:
    requests, served = Requests(clock), list[float]()
    for _ in range(2_000):
        if requests.take(1, 20) == 0:
            served.append(clock.now)
        clock.now += max(pause, 0.05)
    most = max(sum(at <= other < at + 60 for other in served) for at in served)
    assert most <= 40  # two counters are exact for even requests, and let twice as many pass at worst
    assert len(served) >= min(2_000, 0.9 * 20 * (clock.now - 1000) / 60) - 20  # and what is allowed is served


def test_the_requests_of_a_lab_are_counted_for_a_minute(clock: Clock) -> None:
    requests = Requests(clock)
    for _ in range(5):
        requests.take(1, 100)
    requests.take(2, 100)
    assert (requests.count(1), requests.count(2), requests.count(3)) == (5, 1, 0)
    clock.now += 90
    assert requests.count(1) in (2, 3)
    clock.now += 60
    assert requests.count(1) == 0
