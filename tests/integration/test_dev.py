"""``python -m embedded --reload``, what ``make dev`` starts, on a copy of the code whose files the tests change."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dermq.settings import ROOT
from tests.integration.test_embedded import Running, wait
from tests.servers import free_port

_RELOAD_SECONDS = 30.0
_CODE = ("dermq", "web", "worker", "embedded", "migrations", "bundles")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A system that is ready, in a clone of its own."""
    with tempfile.TemporaryDirectory(prefix="dermq-dev-") as folder:
        clone = Path(folder).resolve() / "clone"
        for name in _CODE:
            shutil.copytree(ROOT / name, clone / name)
        shutil.copy(ROOT / "alembic.ini", clone)
        found = Running(clone / "var", free_port(), "--reload")
        found.root = clone
        found.environment["DERMQ_SQL_ECHO"] = "true"
        found.start()
        yield found
        if found.process.is_running():
            found.stop()
        for left in found.processes():
            left.kill()


def test_a_demo_batch_of_generated_pictures_is_classified(running: Running) -> None:
    wait(lambda: "A demo batch of 40 generated pictures" in running.said(), 30)
    batch = (running.var_dir / "demo-batch").read_text()
    wait(lambda: running.call("GET", f"/api/v1/batches/{batch}")["state"] == "finished", 60)
    counts = running.call("GET", f"/api/v1/batches/{batch}")["counts"]
    assert isinstance(counts, dict) and (counts["received"], counts["done"]) == (40, 40)


def test_statements_are_logged_on_wish(running: Running) -> None:
    for program in ("web", "classify"):
        log = running.var_dir / "log" / f"{program}.log"
        wait(lambda log=log: "sqlalchemy.engine" in log.read_text() and "SELECT" in log.read_text(), 10)


@pytest.mark.parametrize(
    ("changed", "restarted", "kept"),
    [("web/app.py", "gunicorn", "worker classify"), ("worker/tasks.py", "worker classify", "gunicorn")],
)
def test_a_change_restarts_the_programs_that_read_it(running: Running, changed: str, restarted: str, kept: str) -> None:
    before, others = _started(running, restarted), _started(running, kept)
    assert before and others
    with (running.root / changed).open("a") as file:
        file.write("# changed\n")
    wait(lambda: _is_new(running, restarted, before), _RELOAD_SECONDS)
    wait(lambda: running.answer("/health/ready") == 200, 60)
    assert _started(running, kept) == others


def test_ctrl_c_leaves_nothing_behind(running: Running) -> None:
    assert running.stop(signal.SIGINT) == 0
    assert running.processes() == []


def _is_new(running: Running, words: str, before: set[int]) -> bool:
    now = _started(running, words)
    return now != set() and not now & before


def _started(running: Running, words: str) -> set[int]:
    """The programs with these words that watchfiles has started."""
    found = set()
    for watcher in running.process.children():
        try:
            if "watchfiles" in watcher.cmdline():
                found |= {child.pid for child in watcher.children() if words in " ".join(child.cmdline())}
        except psutil.Error:
            continue
    return found
