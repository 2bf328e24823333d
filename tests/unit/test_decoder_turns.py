"""Whose image is decoded next, simulated without decoders."""

import heapq
import itertools
import math
from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from worker.decoders.turns import PATIENCE_SECONDS, SLOW_SECONDS, Turn, Turns

LIMIT_SECONDS = 20.0
DRAIN_SECONDS = 60.0
START_SECONDS = 0.5
TRIES = 2


@dataclass(eq=False)
class Image(Turn):
    """An image that takes a known time; it hangs when that is beyond the limit."""

    seconds: float = 0.01
    ended_at: float | None = None


class Simulation:
    """A pool whose decoders need no processor and no time but that of the images."""

    def __init__(self, places: int) -> None:
        self.turns: Turns[Image] = Turns(places)
        self.now = 0.0
        self.most_slow_beside_others = 0
        self._free = places
        self._events: list[tuple[float, int, str, Image]] = []
        self._running: dict[Image, int] = {}
        """Running images by the number of their try."""
        self._count = 0
        self._order = itertools.count()

    def add(self, images: list[Image]) -> None:
        for image in images:
            self.turns.add(image)
        self._make_room()
        self._start()

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what, image = heapq.heappop(self._events)
            if what == "free":
                self._free += 1
            elif self._running.get(image) == int(what.split()[1]):
                self._happen(what.split()[0], image)
            self._start()
        self.now = max(self.now, until)

    def give_all_back(self) -> None:
        """End a drain: nothing is kept but that an image has ended."""
        for image in [*self._running, *self.turns.empty()]:
            image.slow, image.losses = False, 0
        for image in tuple(self._running):
            self._stop(image)
        self.run(self.now + START_SECONDS)

    def _happen(self, what: str, image: Image) -> None:
        if what == "slow":
            self.turns.slow_down(image)
            self._make_room()
        elif what == "patient":
            self._make_room()
        elif what == "done":
            image.ended_at = self.now
            self._leave(image)
            self._free += 1
        else:
            image.losses += 1
            self._stop(image)
            if image.losses == TRIES:
                image.ended_at = self.now
            else:
                self.turns.slow_down(image)
                self.turns.add(image)

    def _make_room(self) -> None:
        while (stopped := self.turns.stop_one(self.now)) is not None:
            self._stop(stopped)
            self.turns.add(stopped)

    def _stop(self, image: Image) -> None:
        """Kill the decoder of an image; another takes its place."""
        self._leave(image)
        self._put(START_SECONDS, "free", image)

    def _leave(self, image: Image) -> None:
        del self._running[image]
        self.turns.end(image, self.now)

    def _start(self) -> None:
        while self._free and (image := self.turns.take(self.now)):
            self._free -= 1
            self._count += 1
            self._running[image] = self._count
            for seconds, what in ((SLOW_SECONDS, "slow"), (PATIENCE_SECONDS, "patient"), (LIMIT_SECONDS, "lost")):
                if seconds < image.seconds:
                    self._put(seconds, f"{what} {self._count}", image)
            if image.seconds <= LIMIT_SECONDS:
                self._put(image.seconds, f"done {self._count}", image)

    def _put(self, seconds: float, what: str, image: Image) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what, image))


HANGS = 1e9
seconds = st.sampled_from([0.005, 0.05, 0.9, 1.5, 4.5, 12.0, HANGS])


@given(
    st.integers(2, 6), st.lists(st.tuples(st.integers(1, 4), seconds), min_size=1, max_size=80), st.floats(0.0, 20.0)
)
def test_every_drain_ends_images_until_none_are_left(places: int, sizes: list[tuple[int, float]], later: float) -> None:
    images = [Image(lab, seconds=each) for lab, each in sizes]
    left = images
    for _ in range(len(images)):
        simulation = Simulation(places)
        early, late = left[: len(left) // 2 + 1], left[len(left) // 2 + 1 :]
        simulation.add(early)
        simulation.run(later)
        simulation.add(late)
        simulation.run(DRAIN_SECONDS)
        simulation.give_all_back()
        still = [image for image in left if image.ended_at is None]
        assert len(still) < len(left), "a drain ended no image"
        left = still
        if not left:
            return


@given(st.integers(2, 6), st.integers(1, 60), st.integers(1, 200), st.floats(0.0, 100.0))
@example(places=5, hanging=5, quick=190, later=4.0)
def test_a_lab_whose_images_all_hang_costs_another_two_seconds_and_half_of_the_places(
    places: int, hanging: int, quick: int, later: float
) -> None:
    simulation = Simulation(places)
    simulation.add([Image(1, seconds=HANGS) for _ in range(hanging)])
    simulation.run(later)
    others = [Image(2, seconds=0.02) for _ in range(quick)]
    simulation.add(others)
    simulation.run(later + 30)
    alone = math.ceil(quick / (places - places // 2)) * 0.02  # an image is not divided among places
    assert all(image.ended_at is not None for image in others)
    last = max(image.ended_at or 0 for image in others)
    assert last - later <= alone + 0.02 + 2 * (SLOW_SECONDS + START_SECONDS) + 1e-6


def test_a_slow_image_of_another_lab_waits_for_no_more_than_the_two_tries_before_it() -> None:
    simulation = Simulation(2)
    simulation.add([Image(1, seconds=HANGS) for _ in range(40)])
    simulation.run(30.0)
    simulation.add([slow := Image(2, seconds=2.0)])
    simulation.run(30.0 + 2 * LIMIT_SECONDS + 5)
    assert slow.ended_at is not None


def test_a_lab_gets_places_by_the_seconds_that_its_images_take() -> None:
    simulation = Simulation(2)
    large = [Image(1, seconds=0.5) for _ in range(100)]
    small = [Image(2, seconds=0.01) for _ in range(1000)]
    simulation.add(large + small)
    simulation.run(5.0)
    ended = [sum(image.ended_at is not None for image in images) for images in (large, small)]
    assert 8 <= ended[0] <= 12 and 400 <= ended[1] <= 600, "each lab had one of two places"


def test_slow_images_use_every_place_while_nothing_else_waits() -> None:
    simulation = Simulation(4)
    slow = [Image(1, seconds=3.0) for _ in range(4)]
    simulation.add(slow)
    simulation.run(3.0)
    assert [image.ended_at for image in slow] == [3.0] * 4


def test_an_image_that_waits_can_be_discarded_and_one_that_runs_cannot() -> None:
    turns: Turns[Image] = Turns(2)
    first, second = Image(1), Image(1)
    turns.add(first)
    turns.add(second)
    assert turns.take(0.0) is first
    assert turns.discard(second) and not turns.discard(first)
    assert turns.take(0.0) is None
