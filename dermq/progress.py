"""How fast a batch gets on and how long the rest will take."""

import math
from dataclasses import dataclass
from datetime import datetime

from dermq.models import Batch

_RATE_SECONDS = 1.0
"""Least time between two measurements of a batch's rate."""
_RATE_MEMORY = 0.8
"""Weight of the past in the smoothed rate."""
_RATE_STALE_SECONDS = 120.0
"""After a pause this long the rate is measured afresh."""


@dataclass(frozen=True)
class SecondsLeft:
    """The span in which the rest of a batch is expected to be done."""

    low: int
    high: int


def measure(batch: Batch, now: datetime) -> None:
    """Measure the rate of a locked batch, at most once a second."""
    images = batch.done + batch.failed
    started = batch.measured_at
    seconds = (now - started).total_seconds() if started else 0.0
    if started is None or seconds > _RATE_STALE_SECONDS or images < batch.measured_images:
        batch.measured_at, batch.measured_images = now, images
        batch.rate_recent = batch.rate_smoothed = None
    elif seconds >= _RATE_SECONDS:
        rate = (images - batch.measured_images) / seconds
        past = batch.rate_smoothed if batch.rate_smoothed is not None else rate
        batch.rate_recent = rate
        batch.rate_smoothed = _RATE_MEMORY * past + (1 - _RATE_MEMORY) * rate
        batch.measured_at, batch.measured_images = now, images


def seconds_left(batch: Batch) -> SecondsLeft | None:
    """The span between what the last rate and the smoothed one promise; None when nothing waits or none is known."""
    waiting = batch.queued + batch.running
    rates = [rate for rate in (batch.rate_recent, batch.rate_smoothed) if rate]
    if not waiting or not rates:
        return None
    return SecondsLeft(low=math.ceil(waiting / max(rates)), high=math.ceil(waiting / min(rates)))
