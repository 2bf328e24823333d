"""Decides which image is decoded next: labs take turns by the seconds they have used, and slow images hold few places.

The order of labs is that of ``dermq.queue.fairness``, in seconds: a lab starts no earlier than the greatest start that
was served, so an idle lab earns no credit, and the lab with the least start is next. An image that has taken more than
``SLOW_SECONDS`` is slow. While others wait, slow images hold at most half of the places; the others of them are stopped
and begin anew when it is their turn. Nothing here starts, waits or measures: ``pool`` does, under its lock.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SLOW_SECONDS = 1.0
"""An image that has been decoded for this long is slow."""
PATIENCE_SECONDS = 4.0
"""While only images of the same lab wait, a slow image beyond half of the places may run for this long."""
_GUESS_SECONDS = 0.01
"""What an image costs its lab when it starts, until it is known."""


@dataclass(eq=False)
class Turn:
    """An image that waits to be decoded, or is being decoded."""

    lab_id: int
    slow: bool = field(default=False, init=False)
    losses: int = field(default=0, init=False)
    """How many decoders were lost over it."""
    started: float = field(default=0.0, init=False)
    charged_seconds: float = field(default=0.0, init=False)
    """What its lab was charged for this try so far."""
    began_slow: bool = field(default=False, init=False)
    """Whether it was slow when this try began: it has one of the places of slow images."""
    stopped: bool = field(default=False, init=False)
    """Whether its decoder was killed to make room, so that this try does not count."""
    _slow_order: int = field(default=0, init=False)


T = TypeVar("T", bound=Turn)


class Turns(Generic[T]):
    """The order of the images of one pool with a fixed number of places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.slow_places = max(1, places // 2)
        self._quick: dict[int, deque[T]] = {}
        """The waiting images that are not slow, by lab."""
        self._slow: list[T] = []
        self._running: list[T] = []
        self._starts: dict[int, float] = {}
        self._served = 0.0
        self._slowed = 0

    def add(self, turn: T) -> None:
        """Let an image wait. One over which a decoder was lost, or that was stopped, waits with the slow ones."""
        self._enter(turn.lab_id)
        if turn.slow:
            self._slow.append(turn)
        else:
            self._quick.setdefault(turn.lab_id, deque()).append(turn)

    def discard(self, turn: T) -> bool:
        """Let an image wait no longer; return False when it is not waiting."""
        if turn in self._slow:
            self._slow.remove(turn)
            return True
        queue = self._quick.get(turn.lab_id)
        if queue is None or turn not in queue:
            return False
        queue.remove(turn)
        if not queue:
            del self._quick[turn.lab_id]
        return True

    def take(self, now: float) -> T | None:
        """Return the image that is next, as one that runs from ``now``; None when none may start."""
        turn = self._choose(now)
        if turn is None:
            return None
        turn.started, turn.charged_seconds = now, 0.0
        turn.began_slow, turn.stopped = turn.slow, False
        self._served = max(self._served, self._find_start(turn.lab_id, now))
        self._charge(turn, _GUESS_SECONDS)
        self._running.append(turn)
        return turn

    def slow_down(self, turn: T) -> None:
        """Note that an image is slow."""
        if not turn.slow:
            self._slowed += 1
            turn.slow, turn._slow_order = True, self._slowed

    def end(self, turn: T, now: float) -> None:
        """Note that a running image runs no longer, and charge its lab for the time."""
        self._charge(turn, now - turn.started)
        self._running.remove(turn)

    def stop_one(self, now: float) -> T | None:
        """Return a running image that must make room now, as ``stopped``; None when none must.

        Of the slow ones beyond half of the places, it is one that became slow just now rather than one that began slow,
        and one over which no decoder was lost rather than another, so that some image always comes to its end.
        """
        running = [turn for turn in self._running if not turn.stopped]
        slow = [turn for turn in running if turn.slow]
        waiting = sum(map(len, self._quick.values()))
        if len(slow) <= self.slow_places or waiting <= self.places - len(running):
            return None
        last = min(slow, key=lambda turn: (turn.began_slow, turn.losses > 0, -turn.started, -turn._slow_order))
        others_wait = any(lab_id != last.lab_id for lab_id in self._quick)
        if not others_wait and now - last.started < PATIENCE_SECONDS:
            return None
        last.stopped = True
        return last

    def list_slow_labs(self) -> set[int]:
        """Return the labs of the slow images that wait or run."""
        return {turn.lab_id for turn in (*self._slow, *self._running) if turn.slow}

    def empty(self) -> list[T]:
        """Let no image wait any longer, and return those that did."""
        waited = [*self._slow, *(turn for queue in self._quick.values() for turn in queue)]
        self._slow.clear()
        self._quick.clear()
        return waited

    def _enter(self, lab_id: int) -> None:
        """Add a lab that has nothing here, and remove those whose start is not above the one served."""
        active = {turn.lab_id for turn in (*self._running, *self._slow)} | self._quick.keys()
        if lab_id not in active:
            kept = {lab: start for lab, start in self._starts.items() if lab in active or start > self._served}
            kept[lab_id] = max(self._starts.get(lab_id, 0.0), self._served)
            self._starts = kept

    def _count_slow_before(self, turn: T) -> int:
        """Return how many running images have a better right to a place of slow images than one that waits."""
        return sum(
            other.began_slow or (not turn.losses and other._slow_order < turn._slow_order)
            for other in self._running
            if other.slow
        )

    def _charge(self, turn: T, seconds: float) -> None:
        """Charge the lab of an image, so that its try has cost ``seconds`` in all."""
        self._starts[turn.lab_id] += seconds - turn.charged_seconds
        turn.charged_seconds = seconds

    def _find_start(self, lab_id: int, now: float) -> float:
        """Return where a lab stands in the fair order, with the seconds of what it has running."""
        running = (
            max(0.0, now - turn.started - turn.charged_seconds) for turn in self._running if turn.lab_id == lab_id
        )
        return self._starts[lab_id] + sum(running)

    def _choose(self, now: float) -> T | None:
        if self._slow:
            # Images over which a decoder was lost come first: otherwise many that hang would all lose only one.
            turn = min(
                self._slow, key=lambda turn: (turn.losses == 0, self._find_start(turn.lab_id, now), turn._slow_order)
            )
            if not self._quick or self._count_slow_before(turn) < self.slow_places:
                self._slow.remove(turn)
                return turn
        if not self._quick:
            return None
        lab_id = min(self._quick, key=lambda lab_id: (self._find_start(lab_id, now), lab_id))
        turn = self._quick[lab_id].popleft()
        if not self._quick[lab_id]:
            del self._quick[lab_id]
        return turn
