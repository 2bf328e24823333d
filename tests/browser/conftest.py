"""Fixtures for a real browser with a real system: the one that ``make run`` starts, or only the web."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from sqlalchemy.orm import Session

from dermq import access_tokens, db, labs, sign_in_codes
from dermq.settings import ROOT, Settings
from tests import conftest, servers

ARTEFACTS = ROOT / "tests" / "artefacts"
READY_SECONDS = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class System:
    """A running dermq with one lab."""

    url: str
    sessions: db.Sessions
    lab: str
    token: str

    def sign_in_link(self) -> str:
        """Return a link that signs a browser in once."""

        def issue(session: Session) -> str:
            lab = labs.find(session, self.lab)
            assert lab is not None
            return sign_in_codes.issue(session, access_tokens.list_all(session, lab.id)[0])

        return f"{self.url}/sign-in?code={db.transact(self.sessions, issue)}"


@dataclass
class Watched:
    """A page whose requests and errors are recorded. ``expected`` holds the errors that a test causes on purpose."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system, started as by ``make run``."""
    settings = make_settings(tmp_path_factory.mktemp("system"))
    with run_program(["embedded"], settings, "ready"):
        token = (settings.var_dir / "local-token").read_text().strip()
        with contextlib.closing(db.Sessions(settings.database)) as sessions:
            yield System(make_address(settings), sessions, "local", token)


@pytest.fixture(scope="session")
def web_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A web without workers and Redis, so queued images stay queued."""
    settings = make_settings(tmp_path_factory.mktemp("web"))
    servers.migrate(settings.database)
    with contextlib.closing(db.Sessions(settings.database)) as sessions:
        token = db.transact(sessions, lambda session: access_tokens.issue(session, labs.add(session, "lab"), "tests"))
        with run_program(["gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"], settings, "live"):
            yield System(make_address(settings), sessions, "lab", token)


def make_settings(folder: Path) -> Settings:
    return Settings(var_dir=folder, port=servers.free_port(), _env_file=None)


def make_address(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.port}"


@contextlib.contextmanager
def run_program(command: list[str], settings: Settings, state: str) -> Iterator[None]:
    """Start a program, wait until its health check passes, and stop it at the end of the block."""
    environment = {**os.environ, "DERMQ_VAR_DIR": str(settings.var_dir), "DERMQ_PORT": str(settings.port)}
    log = settings.var_dir.with_suffix(".console")
    program = _start(command, environment, log)
    try:
        _wait(f"{make_address(settings)}/health/{state}", program, log)
        yield
    finally:
        _stop(program)


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _wait(url: str, program: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and program.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"{url} did not get ready\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium of this machine."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        conftest.missing("Chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=_BROWSER_OPTIONS)
        yield found
        found.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page in a fresh profile. After the test, it must have no errors and no requests to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    seen = Watched(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("console", seen.note)
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    yield seen
    context.close()
    hosts = {urlsplit(url).hostname for url in seen.requests if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts <= {"127.0.0.1"}
    assert seen.unexpected() == []


@pytest.fixture
def page(watched: Watched) -> Page:
    """The recorded page."""
    return watched.page


@pytest.fixture
def signed_in(page: Page, system: System) -> Page:
    """A page of the whole system: the list of batches, signed in."""
    page.goto(system.sign_in_link())
    return page


@pytest.fixture
def signed_in_alone(page: Page, web_alone: System) -> Page:
    """A page of the web without workers: the list of batches, signed in."""
    page.goto(web_alone.sign_in_link())
    return page
