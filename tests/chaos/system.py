"""A whole dermq of real processes with short leases, into which faults are injected; and the states of its images."""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import psutil
import sqlalchemy as sa

from dermq import access_tokens, batches, bundles, conservation, db, labs
from dermq.lifecycle import ImageState
from dermq.models import Batch, Claim, Image, Lab, Prediction, Worker
from dermq.principals import OPERATOR
from dermq.settings import ROOT, Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue, Wakeups
from tests import fakes, scenarios, servers
from tests.chaos import worker
from tests.conftest import SHARED

SHORT: dict[str, Any] = {
    "lease_seconds": 4,
    "reaper_seconds": 1,
    "worker_seen_seconds": 1,
    "stalled_seconds": 8,
    "claim_images": 32,
    "step_images": 8,
    "drain_seconds": 20,
    "decode_seconds": 6,
}
"""Settings that shorten minutes to seconds and keep the proportions of the defaults."""
_KEEPER_SECONDS = 0.05
CANARIES = 10
_MOST_AUDITED_ROWS = 200_000
"""The audit of 100,000 takes 2 seconds."""
_FINAL = (ImageState.DONE, ImageState.FAILED, ImageState.CANCELLED)


class Gone(Exception):
    """Raised when a condition was not met in time."""


@dataclasses.dataclass(frozen=True)
class Census:
    """The final states of the images, and the findings of the audit."""

    images: int
    lost: int
    """Images that are expected but not in a final state, or accepted but without a row."""
    doubled: int
    """Images with more than one row, prediction or count."""
    states: dict[str, int]
    breaches: list[str]


class Program:
    """A process that is restarted when it ends, as by supervisor and compose."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self.starts = 0
        self._kept = True
        self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """Return the pool processes, which do the work."""
        with contextlib.suppress(psutil.Error):
            return [child for child in self.process.children() if "spawn_main" in " ".join(child.cmdline())]
        return []

    def signal(self, number: int, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def end(self) -> None:
        """Kill it with its children, and do not restart it."""
        self._kept = False
        self._keeper.join()
        self.signal(signal.SIGCONT, group=True)
        self.signal(signal.SIGKILL, group=True)
        self.process.wait()

    def _start(self) -> None:
        self.starts += 1
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while self._kept:
            if self.process.poll() is not None:
                self.signal(signal.SIGKILL, group=True)  # as a supervisor that kills the whole group
                self._start()
            time.sleep(_KEEPER_SECONDS)


class System:
    """A database, Valkey, blobs, and the programs that use them."""

    def __init__(self, folder: Path, logs: Path, database_url: str, valkey: servers.Valkey) -> None:
        self.folder = folder
        self.logs = logs
        """The folder of the logs. It is on another disk, because the disk with ``folder`` may be full."""
        self.at_work = logs / "at-work"
        """The path of a file that exists while the engine computes a step. It is only useful with one worker."""
        self.valkey = valkey
        self.settings = Settings(
            var_dir=folder / "var", database_url=database_url, redis_url=valkey.url, port=servers.free_port(), **SHORT
        )
        self.sessions = db.Sessions(database_url)
        self.bundle = bundles.find_current(ROOT / "bundles")
        self.blobs = LocalStore(self.settings.blobs)
        self.wakeups = Wakeups(self.settings)
        self.programs: list[Program] = []
        self.postgresql: servers.Postgresql | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for program in self.programs:
            program.end()
        self.sessions.close()

    def start(
        self,
        program: str,
        *,
        images_per_second: float | None = None,
        poison: dict[str, str] | None = None,
        deadly_pixels: tuple[str, str] | None = None,
        messages: list[int] | None = None,
        **changes: Any,
    ) -> Program:
        """Start ``classify``, ``intake``, ``reaper`` or ``web``; workers with the changes of ``tests.chaos.worker``."""
        said = self.settings.model_dump(mode="json", exclude_defaults=True) | changes
        environment = {f"DERMQ_{name.upper()}": str(value) for name, value in said.items()}
        told = {
            worker.RATE: images_per_second,
            worker.POISON: poison,
            worker.DEADLY_PIXELS: deadly_pixels,
            worker.MESSAGES: messages,
        }
        environment |= {name: json.dumps(value) for name, value in told.items() if value}
        environment[worker.AT_WORK] = str(self.at_work)
        command = [sys.executable, "-m", "tests.chaos.worker", program]
        if program == "web":
            command = [sys.executable, "-m", "gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]
        started = Program(command, environment, self.logs / f"{program}.log")
        self.programs.append(started)
        return started

    def start_ready(self, queue: Queue, count: int = 1, **changes: Any) -> list[Program]:
        """Start workers of a queue and wait until each has verified its bundle."""
        before = self.workers(queue)
        started = [self.start(queue.value, **changes) for _ in range(count)]
        until(lambda: self.workers(queue) >= before + count, 90, "workers are ready")
        return started

    def workers(self, queue: Queue) -> int:
        """Return the workers of a queue with a recent heartbeat."""
        wanted = sa.select(sa.func.count()).select_from(Worker).where(Worker.queue == queue)
        return int(self.read(wanted))

    def lab(self, name: str = "") -> Lab:
        return db.transact(self.sessions, labs.add, name or uuid.uuid4().hex[:8])

    def submit(
        self, files: dict[str, bytes], lab: Lab | None = None, *, sealed: bool = True, wake: bool = True
    ) -> Batch:
        """Add files to a new batch as the web does, and wake the workers."""
        batch = fakes.create(self.sessions, lab or self.lab(), self.bundle, name="chaos")
        names = list(files)
        for at in range(0, len(names), 200):
            part = {name: files[name] for name in names[at : at + 200]}
            verdicts = fakes.add(self.sessions, self.blobs, self.settings, batch, part)
            assert all(verdict.error is None for verdict in verdicts)
        db.transact(self.sessions, batches.seal, batch.id, by=OPERATOR)
        if wake:
            self.wakeups.send(Queue.CLASSIFY)
        return batch

    def canary(self) -> Batch:
        """Submit a few images of another lab, which must not be affected by the fault."""
        return self.submit(dict(list(images().items())[:CANARIES]))

    def get(self, batch: Batch | uuid.UUID) -> Batch:
        batch_id = batch if isinstance(batch, uuid.UUID) else batch.id
        found = db.read(self.sessions, lambda session: session.get(Batch, batch_id))
        assert found is not None
        return found

    def ended(self, batch: Batch | uuid.UUID) -> int:
        """Return the number of a batch's images in a final state, by its counts."""
        found = self.get(batch)
        return found.done + found.failed + found.cancelled

    def claims(self) -> set[uuid.UUID]:
        return db.read(self.sessions, lambda session: set(session.scalars(sa.select(Claim.token))))

    def read(self, wanted: sa.Executable) -> Any:
        """Run a query and return the first column of the first row."""
        return db.read(self.sessions, lambda session: session.scalar(wanted))

    def rows(self, wanted: sa.Executable) -> list[tuple[Any, ...]]:
        return db.read(self.sessions, lambda session: [tuple(row) for row in session.execute(wanted)])

    def finish(self, *wanted: Batch | uuid.UUID, seconds: float = 180) -> None:
        """Wait until batches are finished."""
        for batch in wanted:
            until(lambda batch=batch: self.get(batch).finished_at is not None, seconds, "a batch is finished")

    def finish_fast(self, *wanted: Batch | uuid.UUID) -> None:
        """Start one more, fast worker after the fault, and wait until batches are finished."""
        self.start("classify", images_per_second=400)
        self.finish(*wanted)

    def census(self, expected: dict[uuid.UUID, int]) -> Census:
        """Count the images of some batches by their rows, and audit every batch of the database."""
        states: dict[str, int] = {}
        lost = doubled = 0
        for batch_id, count in expected.items():
            found, predictions = db.read(self.sessions, _count, batch_id)
            final = sum(found.get(state, 0) for state in _FINAL)
            lost += max(0, count - final)
            doubled += max(0, sum(found.values()) - count) + max(0, predictions - found.get(ImageState.DONE, 0))
            for state, number in found.items():
                states[state.value] = states.get(state.value, 0) + number
        every = db.read(self.sessions, lambda session: list(session.scalars(sa.select(Batch.id))))
        audits = [conservation.audit(self.sessions, self.blobs, batch_id) for batch_id in every]
        breaches = [finding.detail for audit in audits for finding in audit.findings]
        return Census(sum(states.values()), lost, doubled, states, breaches)

    def census_of_rows(self, expected: int) -> Census:
        """Count all images of a database whose rows have no files, and audit its batches but for the files.

        More than ``_MOST_AUDITED_ROWS`` are only counted.
        """
        states, predictions = db.read(self.sessions, _count)
        rows = sum(states.values())
        doubled = max(0, rows - expected) + max(0, predictions - states.get(ImageState.DONE, 0))
        every = db.read(self.sessions, lambda session: list(session.scalars(sa.select(Batch.id))))
        names = cast(Any, scenarios.Names())
        audited = every if rows <= _MOST_AUDITED_ROWS else []
        audits = [conservation.audit(self.sessions, names, batch_id) for batch_id in audited]
        breaches = [finding.detail for audit in audits for finding in audit.findings]
        by_state = {state.value: count for state, count in states.items()}
        return Census(rows, max(0, expected - rows), doubled, by_state, breaches)

    def log(self, program: str) -> str:
        """Return the logs of all processes of a program."""
        return (self.logs / f"{program}.log").read_text(errors="replace")

    @cached_property
    def token(self) -> str:
        """The access token of a lab called ``web``, which ``client`` uses."""
        lab = self.lab("web")
        return db.transact(self.sessions, access_tokens.issue, lab, "chaos")

    def start_web(self) -> Program:
        started = self.start("web")
        until(lambda: self.call("GET", "/health/live")[0] == 200, 60, "the web answers")
        return started

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, Any]:
        """Send one request on a new connection; return status 0 when there is no response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read() or b"null")
            except (OSError, http.client.HTTPException):
                return 0, None

    def create(self) -> uuid.UUID:
        """Create an empty batch of the lab ``web`` through the API."""
        status, batch = self.call("POST", "/api/v1/batches", b'{"name": "chaos"}')
        if status != 201:
            raise Gone(f"creating a batch answered {status}: {batch}")
        return uuid.UUID(batch["id"])

    def put(self, batch_id: uuid.UUID, name: str, data: bytes) -> tuple[int, Any]:
        """Add one image through the API."""
        return self.call("PUT", f"/api/v1/batches/{batch_id}/images?name={quote(name)}", data, "image/jpeg")

    def insist(self, batch_id: uuid.UUID, name: str, data: bytes) -> int:
        """Add one image through the API, and repeat the request until there is a response."""
        for _ in range(600):
            status, _answer = self.put(batch_id, name, data)
            if status not in (0, 503):
                return status
            time.sleep(0.1)
        return 0

    def seal(self, batch_id: uuid.UUID) -> None:
        """Seal through the API."""
        status, answer = self.call("POST", f"/api/v1/batches/{batch_id}/seal")
        if status != 200:
            raise Gone(f"sealing answered {status}: {answer}")


class Supply:
    """Work that lasts as long as a fault: a new batch is submitted before the last one is done."""

    def __init__(self, system: System, count: int) -> None:
        self._system, self._files = system, images(count)
        self._lab = system.lab()
        self._batches = [system.submit(self._files, self._lab)]

    def refill(self) -> Batch:
        """Submit a new batch when the last one is more than half done; return the last batch. Call it in every loop."""
        if self._system.ended(self._batches[-1]) * 2 > len(self._files):
            self._batches.append(self._system.submit(self._files, self._lab))
        return self._batches[-1]

    def ended(self) -> int:
        return sum(map(self._system.ended, self._batches))

    def is_done(self) -> bool:
        """Return whether no work is left: the last batch has finished, and the others before it."""
        return all(self._system.get(batch).finished_at is not None for batch in self._batches)

    @property
    def expected(self) -> dict[uuid.UUID, int]:
        """Return how many images each batch must hold in the end."""
        return {batch.id: len(self._files) for batch in self._batches}


def _count(session: Any, batch_id: uuid.UUID | None = None) -> tuple[dict[ImageState, int], int]:
    """Return the number of images by state and of predictions, of one batch or of all."""
    wanted = sa.true() if batch_id is None else Image.batch_id == batch_id
    by_state = sa.select(Image.state, sa.func.count()).where(wanted).group_by(Image.state)
    predictions = sa.select(sa.func.count()).select_from(Prediction).join(Image).where(wanted)
    return dict(session.execute(by_state).tuples().all()), session.scalar(predictions) or 0


def beyond(started: float, count: int, images_per_second: float) -> float:
    """Return the seconds since ``started``, less those that the engine alone needs for the images."""
    return max(0.0, time.monotonic() - started - count / images_per_second)


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition and return how many seconds it took. Raises Gone."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise Gone(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - started


_images: dict[str, bytes] = {}


def images(count: int = 1000) -> dict[str, bytes]:
    """Return real dermatoscopic images by name, the same ones each time."""
    if not _images:
        with zipfile.ZipFile(SHARED / "ham10000" / "full_200x150.zip") as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            _images.update((name, archive.read(name)) for name in names[:2000])
    if count > len(_images):
        raise ValueError(f"{count} images wanted, {len(_images)} are at hand.")
    return dict(list(_images.items())[:count])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pause(least: float, most: float, chance: random.Random) -> None:
    time.sleep(chance.uniform(least, most))
