"""Figures in words: filters for templates, and the progress of a batch in one line.

The filters are nouns, because a template reads ``{{ count|number }}``.
"""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint

from dermq import models, taxonomy
from dermq.principals import Scope
from web.api import schemas

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SCOPES = {Scope.READ: "look", Scope.SUBMIT: "submit images", Scope.MANAGE: "cancel, retry, delete and manage the lab"}
# The first mark that an agent string has decides: nearly all contain "Mozilla" and many contain "Safari" and "Chrome".
_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


@dataclass(frozen=True)
class Progress:
    """The progress of a batch, in words."""

    percent: int
    """Share of the images received so far that have ended, rounded down, so that 100 means all."""
    outcome: str
    """E.g. ``1,769 done, 3 failed``."""
    rate: str
    """Images a second; empty when nothing is classified or the rate is not known."""
    left: str
    """The estimated time left; empty when it is not known."""

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
    """Bytes with a decimal unit: ``279_813`` → ``280 kB``."""
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
    """``75`` → ``75 s``; in minutes from two minutes, in hours from two hours, in days from two days."""
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
    """A time in UTC; ``static/js/times.js`` replaces it by the reader's own time."""
    return f"{at.astimezone(UTC):%-d %b %Y, %H:%M} UTC"


def folder(name: str) -> str:
    """``visit-2/one.jpg`` → ``visit-2/``; empty for a name without a folder."""
    return name[: name.rfind("/") + 1]


def visible(name: str) -> str:
    """The name with an escape such as ``\\u202e`` for each character that is invisible or turns the text direction."""
    return name if name.isprintable() else "".join(map(_escape_unseen, name))


def _escape_unseen(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def full_name(code: str) -> str:
    """``mel`` → ``Melanoma``."""
    return taxonomy.BY_CODE[code].name


def scope_words(scopes: list[str]) -> str:
    """``["read", "submit"]`` → ``look and submit``."""
    words = [_SCOPES[scope] for scope in Scope if scope in scopes]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


def browser_name(agent: str) -> str:
    """The name and the system of a browser, from what it calls itself: ``Firefox on Linux``."""
    name = next((name for mark, name in _BROWSERS if mark in agent), agent.partition("/")[0][:40] or "Unknown browser")
    system = next((f" on {name}" for mark, name in _SYSTEMS if mark in agent), "")
    return name + system


def probability(prediction: models.Prediction, code: str) -> float:
    """The probability of the diagnosis ``code``."""
    return float(getattr(prediction, f"p_{code}"))


_FILTERS: tuple[Callable[..., object], ...] = (
    *(visible, number, size, percent, duration, moment, folder, full_name, probability),
    *(scope_words, browser_name),
)


def register(blueprint: Blueprint) -> None:
    """Add the filters to the templates, under the names of the functions."""
    for function in _FILTERS:
        blueprint.add_app_template_filter(function)
