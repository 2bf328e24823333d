"""How pages put figures into words: filters for templates, and a batch's progress in a line."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint

from dermq import models, taxonomy
from web.api import schemas

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True)
class Progress:
    """How far a batch is."""

    percent: int
    """Of the images received so far, rounded down, so that 100 means all."""
    outcome: str
    """E.g. ``1,769 done, 3 failed``."""
    rate: str
    """Empty when nothing moves or the rate is not known."""
    left: str
    """The span in which the rest is expected, or empty."""

    @classmethod
    def of(cls, status: schemas.Batch) -> "Progress":
        counts = status.counts
        ended = counts.done + counts.failed + counts.cancelled
        words = [f"{number(counts.done)} done"]
        for state in ("failed", "cancelled", "refused"):
            if getattr(counts, state):
                words.append(f"{number(getattr(counts, state))} {state}")
        moves = status.images_per_second and counts.queued + counts.running
        return cls(
            percent=math.floor(100 * ended / counts.received) if counts.received else 0,
            outcome=", ".join(words) if counts.received or counts.refused else "no images yet",
            rate=f"{status.images_per_second:.1f} images a second" if moves else "",
            left="" if status.eta_seconds is None else span(status.eta_seconds),
        )


def number(count: float) -> str:
    """``10015`` → ``10,015``."""
    return f"{count:,}"


def size(count: int) -> str:
    """Bytes with a decimal unit: ``279,813`` → ``280 kB``."""
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    whole = units[0] == "B" or value >= 100 or math.isclose(value, round(value), abs_tol=0.05)
    return f"{value:.0f} {units[0]}" if whole else f"{value:.1f} {units[0]}"


def percent(share: float) -> str:
    """``0.9731`` → ``97.3 %``."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """``75`` → ``75 s``; from two minutes on in minutes, from two hours on in hours."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} days"


def span(seconds: schemas.Seconds) -> str:
    """``13 to 23 s``."""
    low, high = duration(seconds.low), duration(seconds.high)
    if low == high:
        return f"about {low}"
    count, unit = low.split()
    return f"{count if high.endswith(unit) else low} to {high}"


def moment(at: datetime) -> str:
    """A time in UTC, for readers whose browser does not turn it into theirs."""
    return f"{at.astimezone(UTC):%-d %b %Y, %H:%M} UTC"


def folder(name: str) -> str:
    """``visit-2/one.jpg`` → ``visit-2/``; empty for a name without one."""
    return name[: name.rfind("/") + 1]


def full_name(code: str) -> str:
    """``mel`` → ``Melanoma``."""
    return taxonomy.BY_CODE[code].name


def probability(prediction: models.Prediction, code: str) -> float:
    """One of the seven."""
    return float(getattr(prediction, f"p_{code}"))


_FILTERS: tuple[Callable[..., object], ...] = (number, size, percent, duration, moment, folder, full_name, probability)


def register(blueprint: Blueprint) -> None:
    """Give templates the filters under the functions' names."""
    for function in _FILTERS:
        blueprint.add_app_template_filter(function)
