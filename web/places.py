"""Places for uploads. A thread that receives a body holds one; the labs share them."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dermq import errors

RETRY_SECONDS = 1
"""Value of Retry-After when there is no place."""
WAIT_SECONDS = 1.0
"""Time that a lab with less than its share waits for a place."""
WANTED_SECONDS = 5.0
"""For this long after a lab found no place, other labs may hold no more than their share."""
_LOOK_SECONDS = 0.1
_SETTLED_SECONDS = 0.5
"""An upload that began less than this ago is not given up, because it mostly ends by itself."""


@dataclass(eq=False)
class Place:
    """The place of one upload."""

    lab_id: int
    end: Callable[[], None]
    """Ends the upload, as if its client had gone away."""
    taken_at: float = field(default_factory=time.monotonic)
    is_given_up: bool = False
    """Whether the upload was ended because another lab has less than its share."""


class Places:
    """As many uploads as may be received at one time.

    One lab alone may have all places. While another wants one, it has at most half: it gets no further place, and its
    youngest uploads beyond that, which lose least, are ended to be sent again.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._share = max(1, count // 2)
        self._taken: list[Place] = []
        self._waiting = 0
        self._wanted: dict[int, float] = {}
        self._changed = threading.Condition()

    def take(self, lab_id: int, *, end: Callable[[], None]) -> Place:
        """Take a place for a lab. Raises Unavailable when it can have none now."""
        with self._changed:
            if not self._is_free_for(lab_id) and not self._wait_for(lab_id):
                raise errors.Unavailable(
                    "busy_receiving",
                    "The server is receiving as many uploads as it can at one time; try again shortly.",
                    RETRY_SECONDS,
                )
            place = Place(lab_id, end)
            self._taken.append(place)
            self._wanted.pop(lab_id, None)
            return place

    def leave(self, place: Place) -> None:
        """Give a place back."""
        with self._changed:
            self._taken.remove(place)
            self._changed.notify_all()

    def _is_free_for(self, lab_id: int) -> bool:
        if len(self._taken) >= self._count:
            return False
        return self._count_held(lab_id) < self._share or not self._is_wanted_by_others(lab_id)

    def _wait_for(self, lab_id: int) -> bool:
        """Return whether a place became free in time. Few threads wait, so that enough are left for other requests."""
        if self._count_held(lab_id) >= self._share:
            return False
        began = time.monotonic()
        self._wanted[lab_id] = began + WANTED_SECONDS
        if self._waiting >= self._share:
            return False
        self._waiting += 1
        try:
            while time.monotonic() < began + WAIT_SECONDS:
                self._give_up_one(lab_id)
                if self._changed.wait_for(lambda: self._is_free_for(lab_id), _LOOK_SECONDS):
                    return True
            return False
        finally:
            self._waiting -= 1

    def _give_up_one(self, lab_id: int) -> None:
        """End the youngest upload of the lab that is most above its share, unless one is being ended already."""
        held = Counter(place.lab_id for place in self._taken if not place.is_given_up)
        greedy, count = max(held.items(), key=lambda item: item[1], default=(lab_id, 0))
        if count <= self._share or greedy == lab_id or any(place.is_given_up for place in self._taken):
            return
        settled = time.monotonic() - _SETTLED_SECONDS
        for place in reversed(self._taken):
            if place.lab_id == greedy and place.taken_at <= settled:
                place.is_given_up = True
                place.end()
                return

    def _count_held(self, lab_id: int) -> int:
        return sum(place.lab_id == lab_id for place in self._taken)

    def _is_wanted_by_others(self, lab_id: int) -> bool:
        now = time.monotonic()
        self._wanted = {lab: until for lab, until in self._wanted.items() if until > now}
        return any(lab != lab_id for lab in self._wanted)
