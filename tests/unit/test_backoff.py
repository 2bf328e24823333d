"""The back-off after Transient errors."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import fakes
from worker.process import backoff
from worker.process.backoff import Backoff


class Heartbeat(fakes.Heartbeat):
    times = 0

    def note_progress(self) -> None:
        self.times += 1


def made(heartbeat: fakes.Heartbeat, *, stopping: bool = False) -> Backoff:
    return Backoff(cast(Any, heartbeat), cast(Any, SimpleNamespace(requested=stopping)))


def test_pauses_double_up_to_the_greatest_and_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.01, 0.05))
    pause = made(fakes.Heartbeat())
    seen = []
    for _ in range(5):
        seen.append(pause.seconds)
        pause.wait()
    assert seen == [0.01, 0.02, 0.04, 0.05, 0.05]
    pause.reset()
    assert pause.seconds == 0.01


def test_a_pause_lasts_for_its_seconds_and_counts_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.3, 0.3))
    heartbeat = Heartbeat()
    started = time.monotonic()
    made(heartbeat).wait()
    assert time.monotonic() - started >= 0.3
    assert heartbeat.times >= 2


def test_a_pause_ends_when_the_worker_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (30.0, 30.0))
    started = time.monotonic()
    made(fakes.Heartbeat(), stopping=True).wait()
    assert time.monotonic() - started < 5
