"""The stop request of a drain, and the exit note of a child process."""

import os
import signal
from pathlib import Path

import pytest

from dermq.settings import Settings
from worker.process import shutdown
from worker.process.shutdown import ExitNote, StopRequest


@pytest.fixture
def placed(tmp_path: Path) -> Settings:
    return Settings(var_dir=tmp_path)


def test_a_drain_is_not_to_stop_by_itself(placed: Settings) -> None:
    with StopRequest(placed) as stop:
        assert not stop.requested


def test_a_signal_asks_a_drain_to_stop_and_no_longer_once_it_has_ended(placed: Settings) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(placed) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_flag_of_its_parent_asks_a_drain_to_stop(placed: Settings) -> None:
    flag = shutdown.find_flag(placed, os.getppid())
    flag.parent.mkdir(parents=True)
    with StopRequest(placed) as stop:
        shutdown.find_flag(placed, os.getppid() + 1).touch()
        assert not stop.requested
        flag.touch()
        assert stop.requested


def test_the_death_of_its_parent_asks_a_drain_to_stop(placed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with StopRequest(placed) as stop:
        monkeypatch.setattr(os, "getppid", lambda: 1_000_000)
        assert stop.requested


def test_the_first_reason_to_end_is_kept_and_returned_once(placed: Settings) -> None:
    ExitNote(placed, 7).write(78, "the bundle differs")
    ExitNote(placed, 7).write(1, "stalled")
    assert ExitNote(placed, 8).take() is None
    assert ExitNote(placed, 7).take() == (78, "the bundle differs")
    assert ExitNote(placed, 7).take() is None
