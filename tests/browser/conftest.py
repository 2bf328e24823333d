"""A real browser before a real system: gunicorn, Valkey and, where a test wants them, workers with the real bundle."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from dermq import db, labs
from dermq.settings import ROOT, Settings
from tests import conftest

ARTEFACTS = ROOT / "tests" / "artefacts"
READY_SECONDS = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class System:
    """A running dermq with one lab."""

    url: str
    settings: Settings
    sessions: db.Sessions
    token: str

    def sign_in_link(self) -> str:
        """A link that signs a browser in once."""

        def issue(session: db.Session) -> str:
            lab = labs.find(session, "lab")
            assert lab is not None
            return labs.issue_sign_in_code(session, lab, labs.tokens(session, lab)[0])

        return f"{self.url}/sign-in?code={db.transact(self.sessions, issue)}"


@dataclass
class Watched:
    """A page whose requests and complaints are watched; what a test provokes on purpose it names in ``expected``."""

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
    """The whole: web, workers, reaper."""
    with running(tmp_path_factory.mktemp("system"), ["classify", "intake", "reaper"]) as found:
        yield found


@pytest.fixture(scope="session")
def web_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A web without workers: what is queued stays queued."""
    with running(tmp_path_factory.mktemp("web"), []) as found:
        yield found


@contextlib.contextmanager
def running(folder: Path, workers: list[str]) -> Iterator[System]:
    """Start the programs and stop them in the order in which ``make run`` does."""
    sockets = Path("/tmp") / f"dermq-browser-{uuid.uuid4().hex[:8]}"  # a socket's path must be short
    sockets.mkdir(mode=0o700)
    port = conftest.free_port()
    settings = Settings(var_dir=folder, redis_url=f"unix://{sockets / 'valkey'}", port=port, _env_file=None)
    conftest.migrate(settings.database)
    sessions = db.Sessions(settings.database)
    token = db.transact(sessions, lambda session: labs.issue_token(session, labs.add(session, "lab"), "tests"))
    environment = {
        **os.environ,
        "DERMQ_VAR_DIR": str(folder),
        "DERMQ_REDIS_URL": settings.redis_url,
        "DERMQ_PORT": str(port),
    }
    web = ["gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]
    if not (ROOT / web[2]).exists():
        web[2] = "/tmp/pagesdev/gunicorn_conf.py"  # XXX
    commands = [["worker", name] for name in workers] + [web]
    with conftest.running_valkey(sockets / "valkey"):
        programs = [_start(command, environment, folder / f"{index}.log") for index, command in enumerate(commands)]
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/health/{'ready' if workers else 'live'}", programs, folder)
            yield System(url, settings, sessions, token)
        finally:
            for program in reversed(programs):
                _stop(program)
            sessions.close()
    shutil.rmtree(sockets)


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
        program.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _wait(url: str, programs: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and all(program.poll() is None for program in programs):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in sorted(folder.glob("*.log")))
    pytest.fail(f"{url} did not get ready\n{logs}")


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
    """A page in a fresh profile. After the test nothing may have left the host and nothing may be wrong with it."""
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
    """The watched page."""
    return watched.page


@pytest.fixture
def signed_in(page: Page, system: System) -> Page:
    """A page of the whole system, signed in, at the batches."""
    page.goto(system.sign_in_link())
    return page


@pytest.fixture
def signed_in_alone(page: Page, web_alone: System) -> Page:
    """A page of the web without workers, signed in, at the batches."""
    page.goto(web_alone.sign_in_link())
    return page
