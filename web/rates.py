"""Counts of this process that live in memory alone: wrong sign-ins by address, and requests by lab.

The web is one process (``web.gunicorn_conf``), so they hold for all requests. A restart begins them anew. Nothing here
sleeps, because a thread that waits could answer others.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE_ATTEMPTS = 10
"""Wrong sign-ins of one address that are answered without a pause."""
LONGEST_PAUSE_SECONDS = 60
FORGET_SECONDS = 900
"""An address without a wrong sign-in for this long begins anew."""
_MINUTE = 60.0
_MOST_ADDRESSES = 10_000
"""Addresses that are remembered, so that memory stays bounded; those that were quiet longest are forgotten first."""


@dataclass
class _Attempts:
    wrong: int = 0
    last_at: float = -math.inf
    free_at: float = -math.inf


class WrongSignIns:
    """Slows down an address that sends wrong secrets. Right secrets are checked before and never slowed down."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._by_address: OrderedDict[str, _Attempts] = OrderedDict()

    def note(self, address: str) -> int:
        """Note a wrong secret; return 0, or the seconds to wait when the address did not wait as long as told.

        From the tenth wrong secret on, the address is to wait 1, 2, 4 … 60 seconds before each further attempt.
        """
        now = self._clock()
        with self._lock:
            found = self._by_address.pop(address, _Attempts())
            if now - found.last_at > FORGET_SECONDS:
                found = _Attempts()
            self._by_address[address] = found
            while len(self._by_address) > _MOST_ADDRESSES:
                self._by_address.popitem(last=False)
            found.last_at = now
            if now < found.free_at:
                return math.ceil(found.free_at - now)
            found.wrong += 1
            if found.wrong >= FREE_ATTEMPTS:
                found.free_at = now + min(LONGEST_PAUSE_SECONDS, 2.0 ** min(found.wrong - FREE_ATTEMPTS, 10))
            return 0


@dataclass
class _Window:
    """The requests of a lab in the minute that began at ``began``, and in the one before."""

    began: float
    now: int = 0
    before: int = 0


class Requests:
    """Counts the requests of each lab within the last minute, by a sliding window of two counters.

    The requests of the minute before are taken to be spread evenly, so that two numbers a lab are enough.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[int, _Window] = {}

    def take(self, lab_id: int, most: int) -> int:
        """Count a request of a lab that may make ``most`` a minute; return 0, or the seconds until it may."""
        with self._lock:
            window, share = self._slide(lab_id)
            if window.now + window.before * (1 - share) <= most - 1:
                window.now += 1
                return 0
            return max(1, math.ceil(_MINUTE * (_find_free_share(window, most) - share)))

    def count(self, lab_id: int) -> int:
        """Return how many requests a lab has made within the last minute, about."""
        with self._lock:
            window, share = self._slide(lab_id)
            return window.now + round(window.before * (1 - share))

    def _slide(self, lab_id: int) -> tuple[_Window, float]:
        """Return a lab's window as it is now, and the share of its minute that is over."""
        now = self._clock()
        window = self._windows.setdefault(lab_id, _Window(now))
        minutes = int((now - window.began) / _MINUTE)
        if minutes:
            window.before = window.now if minutes == 1 else 0
            window.now = 0
            window.began += minutes * _MINUTE
        return window, (now - window.began) / _MINUTE


def _find_free_share(window: _Window, most: int) -> float:
    """Return the share of the minute after which a lab may make a further request; above 1 it is in the next minute."""
    if window.now <= most - 1:
        return 1 - (most - 1 - window.now) / window.before
    return 2 - (most - 1) / window.now
