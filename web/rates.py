"""Counts of this process that live in memory alone: wrong sign-ins by address.

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
