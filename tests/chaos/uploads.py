"""Faults of uploads: a web that is killed, and full disks."""

import contextlib
import itertools
import re
import shutil
import signal
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from dermq.models import Image
from dermq.wakeups import Queue
from tests import samples
from tests.chaos.faults import Scale, Told, expect, fault
from tests.chaos.system import System, images, until

_CLIENTS = 200
_MOST_SECONDS = 120
"""The time limit of all kills together. The clients give up after it."""
_DISK_BYTES = 24_000_000
_BEFORE = 100
"""The number of images that are uploaded before the disk is full. The worker starts after a fifth of them."""
_LEFT_BYTES = 1_500_000
_FULL = r"writing again in .*The database's disk is full"
"""A part of the worker's log entry for a write that fails because the disk is full."""


@fault("SIGKILL the web in the middle of concurrent uploads", short=("sqlite",))
def web_killed(system: System, scale: Scale) -> Told:
    """Each client repeats its upload until it has a response, as a client does that resumes.

    Then it uploads further files until the last kill is over, so that the uploads never end before the kills.
    """
    web = system.start_web()
    system.start("reaper")
    system.start_ready(Queue.CLASSIFY, images_per_second=400)
    files = {**{f"refused-{at}.svg": samples.svg() for at in range(5)}, **images(200)}
    batch = system.create()
    kills, ended, away = min(5, scale.times), threading.Event(), list[float]()

    def more(than: int) -> float:
        return until(lambda: _count(system) > than, 60, "uploads go on")

    def kill() -> None:
        for _ in range(kills):
            more(_count(system) + 10)
            web.signal(signal.SIGKILL, group=True)
            away.append(more(_count(system)))
        ended.set()

    answers, numbers = dict[str, int](), itertools.count()
    [further] = images(1).values()

    def client(first: str) -> None:
        answers[first] = system.insist(batch, first, files[first])
        while not ended.is_set() and time.monotonic() < started + _MOST_SECONDS:
            name = f"further-{next(numbers)}.jpg"
            answers[name] = system.insist(batch, name, further)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    started = time.monotonic()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(client, files))
    seconds = time.monotonic() - started
    accepted = {name for name, status in answers.items() if status in (200, 202)}
    killer.join(60)
    expect(ended.is_set(), "the uploads were over before the last kill")
    good = {name for name in answers if not name.startswith("refused-")}
    expect(accepted == good, f"{len(accepted)} accepted; refused {set(answers) - accepted}")
    system.seal(batch)
    system.finish(batch)
    rows = _names(system, batch)
    expect(sorted(rows) == sorted(accepted), "rows differ from what was accepted")
    told = (
        f"{kills} kills, {len(answers)} uploads, {_CLIENTS} clients, {seconds:.1f} s; "
        "each accepted once, no refused one"
    )
    return Told(told, {batch: len(accepted)}, sum(away))


def _count(system: System) -> int:
    return int(system.read(sa.select(sa.func.count()).select_from(Image)))


@fault("A full disk while uploading and while recording", short=("sqlite",), disk_bytes=_DISK_BYTES)
def disk_full(system: System, scale: Scale) -> Told:
    """With SQLite, database and blobs are on one small disk; with PostgreSQL, only the blobs are."""
    system.start("reaper")
    system.start_web()
    batch, ballast, files = system.create(), system.folder / "ballast", list(images(1000).items())
    began = time.monotonic()
    for accepted in range(_BEFORE):
        expect(system.put(batch, *files[accepted])[0] == 202, "refused while there is space")
        if accepted + 1 == _BEFORE // 5:
            uploads_a_second = (accepted + 1) / (time.monotonic() - began)
            # Half as fast as the uploads, so that images wait to be recorded when the disk is full.
            system.start_ready(Queue.CLASSIFY, images_per_second=min(20, uploads_a_second / 2))
    accepted = _BEFORE
    if system.postgresql is None:  # SQLite would reuse the space of its log and need no more space for a long time
        with contextlib.closing(sqlite3.connect(str(system.sessions.engine.url.database))) as connection:
            checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
            until(lambda: connection.execute(checkpoint).fetchone()[0] == 0, 30, "the log is emptied")
    with ballast.open("wb") as file:
        file.write(b"\0" * (shutil.disk_usage(system.folder).free - _LEFT_BYTES))
    while (answer := system.put(batch, *files[accepted]))[0] == 202:
        accepted += 1
    full = time.monotonic()
    expect(answer[0] == 507 and "detail" in answer[1], f"a full disk answered {answer}")
    if system.postgresql is None:  # then the workers' writes fail
        until(lambda: re.search(_FULL, system.log("classify")) is not None, 60, "a record finds the database full")
    time.sleep(5)  # the disk stays full for a while
    met = len(re.findall(_FULL, system.log("classify")))
    ballast.unlink()
    freed, ended = time.monotonic(), system.ended(batch)
    until(lambda: system.ended(batch) > ended, 60, "recording goes on once there is space")
    resumed = time.monotonic() - freed
    status, _ = system.put(batch, *files[accepted])
    expect(status == 202, f"with space again an upload answered {status}")
    system.seal(batch)
    system.finish(batch)
    rows = _names(system, batch)
    expect(rows == [name for name, _ in files[: accepted + 1]], f"{len(rows)} rows, {accepted + 1} accepted")
    told = (
        f"507 after {accepted} images; full for {freed - full:.0f} s; {met} records found the database full; "
        f"recording {resumed:.1f} s after; none lost"
    )
    return Told(told, {batch: accepted + 1}, seconds_lost=resumed)


def _names(system: System, batch_id: uuid.UUID) -> list[str]:
    return [
        name
        for (name,) in system.rows(sa.select(Image.name).where(Image.batch_id == batch_id).order_by(Image.position))
    ]
