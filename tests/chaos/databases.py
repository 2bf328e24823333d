"""A database that restarts, cuts its connections, or is held up by somebody's snapshot."""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa

from dermq.wakeups import Queue
from tests.chaos.faults import POSTGRESQL, Scale, Told, expect, fault
from tests.chaos.system import Supply, System, beyond, images, until

_SPEED = 100.0
_LEAST_CUTS = 3
_CUT = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@fault("PostgreSQL crashes and restarts mid-batch", databases=POSTGRESQL, short=POSTGRESQL)
def postgresql_restarted(system: System, scale: Scale) -> Told:
    assert system.postgresql is not None
    system.start("reaper")
    system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
    started, times = time.monotonic(), min(3, scale.times)
    work = Supply(system, scale.images)
    backs = []
    for _ in range(times):
        target = work.ended() + scale.images // (times + 2)
        until(lambda target=target: work.ended() >= target, 120, "work goes on")
        work.refill()
        system.postgresql.stop()
        time.sleep(1)
        system.postgresql.start()
        back, ended = time.monotonic(), work.ended()
        until(lambda ended=ended: work.ended() > ended, 60, "back to work")
        backs.append(time.monotonic() - back)
    system.finish(*work.expected)
    told = "1 s away; back to work " + ", ".join(f"{back:.1f}" for back in backs) + " s after its return"
    return Told(told, work.expected, beyond(started, sum(work.expected.values()), _SPEED))


@fault("PostgreSQL cuts every connection, again and again", databases=POSTGRESQL)
def connections_cut(system: System, scale: Scale) -> Told:
    system.start("reaper")
    system.start_web()
    system.start_ready(Queue.CLASSIFY, 2, images_per_second=_SPEED / 2)
    uploads, files, sent = system.create(), list(images(1000).values()), 0
    started = time.monotonic()
    work = Supply(system, scale.images)
    with _cutting(system) as cuts:
        while work.ended() < scale.images * 3 // 4 or len(cuts) < _LEAST_CUTS or sent < _LEAST_CUTS:
            work.refill()
            status = system.insist(uploads, f"{sent}.jpg", files[sent % len(files)])
            expect(status in (200, 202), f"an upload answered {status}")
            sent += 1
    system.seal(uploads)
    system.finish(*work.expected, uploads)
    expect(
        len(cuts) >= _LEAST_CUTS and sent >= _LEAST_CUTS,
        f"only {len(cuts)} cuts and {sent} uploads before the work was done",
    )
    told = f"{len(cuts)} times all connections of web, reaper and two workers; {sent} uploads meanwhile, each kept once"
    counts = {**work.expected, uploads: sent}
    return Told(told, counts, beyond(started, sum(counts.values()), _SPEED))


@contextlib.contextmanager
def _cutting(system: System) -> Iterator[list[int]]:
    """Cut every connection twice a second; gives how many were there each time."""
    admin = sa.create_engine(system.sessions.engine.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    ended, cuts = threading.Event(), list[int]()

    def cut() -> None:
        while not ended.wait(0.5):
            with admin.connect() as connection:
                cuts.append(len(connection.execute(_CUT).all()))

    with ThreadPoolExecutor(1) as cutter:
        cutting = cutter.submit(cut)
        try:
            yield cuts
        finally:
            ended.set()
    cutting.result()


@fault("A snapshot held open during upload and claim", databases=POSTGRESQL, short=POSTGRESQL)
def snapshot_held(system: System, scale: Scale) -> Told:
    """It keeps dead rows from being cleaned away, so that every update of a row that is updated often gets slower."""
    system.start("reaper")
    system.start_web()
    system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED * 4)
    calm_seconds, held_seconds = scale.seconds / 2, scale.seconds * 2
    with _uploading(system) as sent:
        time.sleep(1)
        calm = _rates(system, sent, calm_seconds)
        with _snapshot(system):
            _rates(system, sent, held_seconds - calm_seconds)
            held = _rates(system, sent, calm_seconds)  # its last part, when most has piled up
    system.seal(sent.batch)
    system.finish(sent.batch)
    uploads, done = held[0] / calm[0], held[1] / calm[1]
    told = f"{held_seconds:g} s; uploads {calm[0]:.0f} to {held[0]:.0f}/s, images done {calm[1]:.0f} to {held[1]:.0f}/s"
    expect(uploads > 0.5 and done > 0.5, told)
    return Told(told, {sent.batch: len(sent.names)}, held_seconds * max(0.0, 1 - uploads))


@dataclass
class _Sent:
    """Names of images that a batch accepted."""

    batch: uuid.UUID
    names: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _uploading(system: System) -> Iterator[_Sent]:
    """Four clients that put images one after the other, each of its own name."""
    sent, ended = _Sent(system.create()), threading.Event()
    files = list(images(1000).values())

    def put(client: int) -> None:
        at = 0
        while not ended.is_set():
            name = f"{client}-{at}.jpg"
            status, _ = system.put(sent.batch, name, files[(4 * at + client) % len(files)])
            if status in (200, 202):
                sent.names.append(name)
            at += 1

    threads = [threading.Thread(target=put, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield sent
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _rates(system: System, sent: _Sent, seconds: float) -> tuple[float, float]:
    """Images accepted and images done, a second."""
    uploads, done, started = len(sent.names), _done(system), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - started
    return (len(sent.names) - uploads) / passed, (_done(system) - done) / passed


def _done(system: System) -> int:
    return int(system.read(sa.text("SELECT sum(done) FROM batch")) or 0)


@contextlib.contextmanager
def _snapshot(system: System) -> Iterator[None]:
    """A transaction of somebody's that has read once and stays open, as a report in one transaction would."""
    other = sa.create_engine(system.sessions.engine.url, isolation_level="REPEATABLE READ", poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.execute(sa.text("SELECT count(*) FROM batch"))
        yield
