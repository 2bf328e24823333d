"""``python -m embedded``, what ``make run`` starts, as a user sees it: one system, started once for the module."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dermq.settings import ROOT
from tests import samples
from tests.servers import free_port

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0


class Running:
    """One ``python -m embedded`` with a ``var/`` and a port of its own."""

    def __init__(self, var_dir: Path, port: int, *options: str) -> None:
        self.command = [sys.executable, "-m", "embedded", *options]
        self.root = ROOT
        self.var_dir = var_dir
        self.console = var_dir.with_name("console")
        self.address = f"http://127.0.0.1:{port}"
        self.environment = _environment(var_dir, port)

    def start(self, until: Callable[[], bool] | None = None) -> None:
        """Start it and wait until it is ready, or until something else has happened."""
        with self.console.open("w") as console:
            self.process = psutil.Popen(
                self.command,
                cwd=self.root,
                env=self.environment,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait(until or (lambda: self.answer("/health/ready") == 200), _READY_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it as a terminal does, by a signal to the whole group; returns the exit status."""
        if self.process.is_running():
            os.killpg(self.process.pid, number)
        return int(self.process.wait(_STOP_SECONDS))

    def said(self) -> str:
        """What stands on the console so far."""
        return self.console.read_text()

    def answer(self, path: str) -> int:
        """The status of an HTTP answer; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as err:
            return err.code
        except OSError:
            return 0

    def call(self, method: str, path: str, body: bytes | None = None) -> dict[str, object]:
        """An API call as the local lab."""
        token = (self.var_dir / "local-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def child(self, words: str) -> psutil.Process:
        """The program, started by the process manager itself, whose command line holds ``words``."""
        return next(child for child in self.process.children() if words in " ".join(child.cmdline()))

    def has(self, words: str, other_than: int) -> bool:
        """Whether a program with ``words`` in its command line runs that is not the process ``other_than``."""
        found = [child.pid for child in self.process.children() if words in " ".join(_command(child))]
        return found != [] and other_than not in found

    def processes(self) -> list[psutil.Process]:
        """Every process that was started with this ``var/``, wherever it hangs now."""
        mine = self.environment["DERMQ_VAR_DIR"]
        return [found for found in psutil.process_iter() if _variable(found, "DERMQ_VAR_DIR") == mine]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A system that is ready; the tests below share it, in their order."""
    with tempfile.TemporaryDirectory(prefix="dermq-test-") as folder:
        found = Running(Path(folder).resolve() / "var", free_port())
        found.start()
        yield found
        if found.process.is_running():
            found.stop()
        for left in found.processes():
            left.kill()


def test_it_says_where_it_is_and_how_to_sign_in(running: Running) -> None:
    wait(lambda: "sign-in?code=" in running.said(), 10)
    assert running.address in running.said()
    assert "research only" in running.said()


def test_what_it_keeps_is_closed_to_others(running: Running) -> None:
    assert stat.S_IMODE((running.var_dir / "local-token").stat().st_mode) == 0o600
    assert stat.S_IMODE(running.var_dir.stat().st_mode) == 0o700
    kept = [path for path in running.var_dir.rglob("*") if path.is_file()]
    assert [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_no_secret_is_in_a_log(running: Running) -> None:
    token = (running.var_dir / "local-token").read_text().strip()
    code = running.said().split("code=")[1].split()[0]
    logs = "".join(path.read_text(errors="replace") for path in (running.var_dir / "log").iterdir())
    assert token not in logs and code not in logs


@pytest.mark.parametrize(
    ("document", "answer"), [("README.md", "1,lesion.jpg,"), ("docs/api.md", '"archives_open":')], ids=str
)
def test_commands_in_documents_work(running: Running, tmp_path: Path, document: str, answer: str) -> None:
    (tmp_path / "lesion.jpg").write_bytes(samples.jpeg())
    (tmp_path / "images.zip").write_bytes(samples.archive({"a.jpg": samples.jpeg(1), "b/c.jpg": samples.jpeg(2)}))
    (tmp_path / "var").symlink_to(running.var_dir)
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", (ROOT / document).read_text(), re.S))
    script = f"set -euo pipefail\n{commands.replace('http://127.0.0.1:8000', running.address)}"
    found = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert answer in found.stdout and "urn:dermq:problem" not in found.stdout


def test_a_taken_port_is_named_and_nothing_is_touched(running: Running, tmp_path: Path) -> None:
    port = running.address.rsplit(":", 1)[1]
    second = _try(_environment(tmp_path / "var", int(port)))
    assert second.returncode == 1
    assert port in second.stderr and "DERMQ_PORT=" in second.stderr
    assert not (tmp_path / "var" / "dermq.sqlite3").exists()
    assert running.answer("/health/ready") == 200


def test_a_second_start_on_the_same_data_is_refused(running: Running) -> None:
    second = _try(_environment(running.var_dir, free_port()))
    assert second.returncode == 1
    assert running.address in second.stderr
    assert running.answer("/health/ready") == 200


@pytest.mark.parametrize("words", ["worker classify", "web.app:create_app()", "valkey"])
def test_a_killed_program_is_started_again(running: Running, words: str) -> None:
    killed = running.child(words)
    killed.kill()
    wait(lambda: running.has(words, other_than=killed.pid), 10)
    wait(lambda: running.answer("/health/ready") == 200, _READY_SECONDS)
    assert "started again" in running.said() or "tried again" in running.said()


def test_ctrl_c_stops_everything_and_the_next_start_has_the_data(running: Running) -> None:
    token = (running.var_dir / "local-token").read_text()
    batch = running.call("POST", "/api/v1/batches", b'{"name": "kept"}')["id"]
    assert running.stop(signal.SIGINT) == 0
    assert running.processes() == []
    assert "its data is kept" in running.said()
    running.start()
    assert (running.var_dir / "local-token").read_text() == token
    assert running.call("GET", f"/api/v1/batches/{batch}")["name"] == "kept"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_or_a_polite_kill_stops_everything_too(running: Running, number: signal.Signals) -> None:
    if not running.process.is_running():
        running.start()
    running.process.send_signal(number)
    assert running.process.wait(_STOP_SECONDS) == 0
    assert running.processes() == []


def test_a_worker_that_cannot_verify_its_bundle_is_not_started_again(tmp_path: Path) -> None:
    bundles_dir = tmp_path / "bundles"
    shutil.copytree(ROOT / "bundles", bundles_dir)
    for model in bundles_dir.glob("*/model.*"):
        model.write_bytes(model.read_bytes()[:-1])
    found = Running(tmp_path / "var", free_port())
    found.environment["DERMQ_BUNDLES_DIR"] = str(bundles_dir)
    found.start(until=lambda: "not started again" in found.said() or "is given up" in found.said())
    told = found.said()
    assert found.stop() == 0
    assert "classify" in told and "SHA-256" in told
    log = (found.var_dir / "log" / "supervisord.log").read_text()
    assert log.count("spawned: 'classify'") == 1
    assert log.count("spawned: 'web'") == 1


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    found = _try(_environment(tmp_path / "var", 8000) | {"DERMQ_PORT": "eight"})
    assert found.returncode == 1
    assert "DERMQ_PORT" in found.stderr and "Traceback" not in found.stderr


def wait(happened: Callable[[], bool], seconds: float) -> None:
    """Wait until something has happened; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not happen within {seconds} s")
        time.sleep(0.1)


def _try(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "embedded"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


def _environment(var_dir: Path, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DERMQ_")}
    return kept | {"DERMQ_VAR_DIR": str(var_dir), "DERMQ_PORT": str(port)}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except (psutil.Error, OSError):
        return None
