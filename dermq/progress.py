"""The rate at which a batch is classified, and an estimate of the time that the rest will take."""

import math
from dataclasses import dataclass
from datetime import datetime

from dermq.models import Batch

_RATE_SECONDS = 1.0
"""Least time between two measurements of a batch's rate."""
_RATE_MEMORY = 0.8
"""Weight of the previous value in the smoothed rate (exponential smoothing)."""
_RATE_STALE_SECONDS = 120.0
"""After a longer pause, earlier measurements are dropped."""


@dataclass(frozen=True)
class SecondsLeft:
    """An estimate of when the rest of a batch is done: not before ``low`` and not after ``high`` seconds."""

    low: int
    high: int


def measure(batch: Batch, now: datetime) -> None:
    """Update the rates of a locked batch, at most once a second."""
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


def estimate_seconds_left(batch: Batch) -> SecondsLeft | None:
    """Estimate the time left from the recent and the smoothed rate. None when nothing waits or no rate is known."""
    waiting = batch.queued + batch.running
    rates = [rate for rate in (batch.rate_recent, batch.rate_smoothed) if rate]
    if not waiting or not rates:
        return None
    return SecondsLeft(low=math.ceil(waiting / max(rates)), high=math.ceil(waiting / min(rates)))
