"""Labs share the places for uploads."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dermq import errors
from web import places
from web.places import Place, Places

A, B, C = 1, 2, 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nobody wait long, and let every upload be old enough to be given up."""
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(places, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(places, "_SETTLED_SECONDS", 0.0)
    yield


class Upload:
    """An upload that gives its place back as soon as it is ended."""

    def __init__(self, of: Places, lab_id: int) -> None:
        self._places = of
        self.ended = False
        self.place = of.take(lab_id, end=self.end)

    def end(self) -> None:
        self.ended = True
        threading.Thread(target=self._places.leave, args=(self.place,)).start()


def keep(of: Places, lab_id: int) -> Place:
    return of.take(lab_id, end=lambda: None)


def assert_busy(take: Callable[[], object]) -> None:
    with pytest.raises(errors.Unavailable) as raised:
        take()
    assert raised.value.code == "busy_receiving" and raised.value.retry_seconds == 1


def test_one_lab_alone_may_have_all_places() -> None:
    shared = Places(8)
    held = [keep(shared, A) for _ in range(8)]
    began = time.monotonic()
    assert_busy(lambda: keep(shared, A))
    assert time.monotonic() - began < 0.2, "a lab with its share does not wait in a thread"
    shared.leave(held[3])
    keep(shared, A)


def test_another_lab_gets_the_places_beyond_half() -> None:
    shared = Places(8)
    first = [Upload(shared, A) for _ in range(8)]
    second = [Upload(shared, B) for _ in range(4)]
    assert [upload.ended for upload in first] == [False] * 4 + [True] * 4, "the youngest lose least"
    assert_busy(lambda: keep(shared, B))
    assert not any(upload.ended for upload in second)


def test_who_has_half_gets_no_more_while_another_wants_one() -> None:
    shared = Places(4)
    held = [keep(shared, A) for _ in range(4)]
    assert_busy(lambda: keep(shared, B))
    for place in held[:2]:
        shared.leave(place)
    assert_busy(lambda: keep(shared, A))
    shared.leave(keep(shared, B))
    keep(shared, A)


def test_a_wish_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WANTED_SECONDS", 0.05)
    shared = Places(4)
    held = [keep(shared, A) for _ in range(4)]
    assert_busy(lambda: keep(shared, B))
    shared.leave(held[0])
    time.sleep(0.1)
    keep(shared, A)


def test_a_place_that_becomes_free_goes_to_who_waits() -> None:
    shared = Places(2)
    first, _ = keep(shared, A), keep(shared, B)
    threading.Timer(0.1, shared.leave, [first]).start()
    assert keep(shared, C).lab_id == C


def test_young_uploads_are_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SETTLED_SECONDS", 60.0)
    shared = Places(4)
    first = [Upload(shared, A) for _ in range(4)]
    assert_busy(lambda: keep(shared, B))
    assert not any(upload.ended for upload in first)


def test_few_threads_wait() -> None:
    shared = Places(4)
    for lab_id in range(4):
        keep(shared, lab_id)
    began, took = threading.Barrier(6), []

    def want(lab_id: int) -> None:
        began.wait()
        start = time.monotonic()
        assert_busy(lambda: keep(shared, lab_id))
        took.append(time.monotonic() - start)

    threads = [threading.Thread(target=want, args=(lab_id,)) for lab_id in range(10, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 6 and sum(seconds > 0.25 for seconds in took) == 2
