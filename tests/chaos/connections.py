"""Faults of clients: strangers and a lab that send or read as little as they can, on thousands of connections."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from dermq import access_tokens, db
from dermq.wakeups import Queue
from tests import strangers
from tests.chaos.faults import Run, Scale, Told, expect, fault
from tests.chaos.system import Program, System, images

_UPLOADS = 20
_MOST_LOST_SECONDS = 2.0
_MOST_MEGABYTES = 200
_LARGE = "/api/docs/swagger-ui/swagger-ui-bundle.js"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data; boundary=b"
_HALF = b"GET /health/live HTTP/1.1\r\nHost: local"


@dataclass(frozen=True)
class Crowd:
    """Connections that are held while another lab works."""

    count: int
    begin: Callable[[str, uuid.UUID], bytes]
    """Makes what each sends at first, of the header with the token of the lab ``greedy`` and its batch."""
    drip: bytes = b""
    """What each sends then, a byte a second."""


_CROWDS = {
    "2,000 half-sent heads that go on": Crowd(2_000, lambda _, __: _HALF, b"host\r\nX: a"),
    "2,000 half-sent heads that stop": Crowd(2_000, lambda _, __: _HALF),
    "400 idle connections": Crowd(400, lambda _, __: b""),
    "200 forms to sign in whose bodies drip": Crowd(
        200, lambda _, __: strangers.post("/sign-in", 50_000, _FORM), b"token=a"
    ),
    "200 uploads without a token that drip": Crowd(
        200, lambda _, batch: strangers.put(f"/api/v1/batches/{batch}/images?name=a", 50_000), b"a"
    ),
    "One lab holding every place with uploads that drip": Crowd(
        200, lambda token, batch: strangers.put(f"/api/v1/batches/{batch}/images?name=a", 50_000, token), b"a"
    ),
    "One lab holding every place with forms that drip": Crowd(
        200, lambda token, _: strangers.post("/api/v1/batches", 50_000, _MULTIPART, token), b"a"
    ),
    "50 clients that do not read large answers": Crowd(50, lambda _, __: strangers.get(_LARGE) * 3),
}


def _make(crowd: Crowd) -> Run:
    def hold(system: System, scale: Scale) -> Told:
        web = system.start_web()
        system.start("reaper")
        system.start_ready(Queue.CLASSIFY, images_per_second=400)
        greedy = db.transact(system.sessions, access_tokens.issue, system.lab("greedy"), "chaos")
        theirs = system.submit(images(1), system.lab(), wake=False)
        batch, files = system.create(), list(images(2 * _UPLOADS).items())
        alone = _upload(system, batch, files[:_UPLOADS])
        begin = crowd.begin(f"Authorization: Bearer {greedy}", theirs.id)
        with strangers.hold(system.settings.port, crowd.count, begin, crowd.drip):
            time.sleep(2)
            live = max(_measure_live(system) for _ in range(10))
            lost = max(0.0, _upload(system, batch, files[_UPLOADS:]) - alone)
            megabytes = _measure_megabytes(web)
        expect(lost <= _MOST_LOST_SECONDS, f"{lost:.1f} s lost by another lab")
        expect(megabytes < _MOST_MEGABYTES, f"the web has {megabytes} MB")
        system.seal(batch)
        system.finish(batch, theirs)
        told = f"/health/live in {live * 1000:.0f} ms at most, the web has {megabytes} MB"
        return Told(told, {batch: 2 * _UPLOADS, theirs.id: 1}, seconds_lost=lost)

    return hold


def _upload(system: System, batch: uuid.UUID, files: list[tuple[str, bytes]]) -> float:
    """Upload files one after the other, and return how many seconds that took."""
    began = time.monotonic()
    for name, data in files:
        status = system.insist(batch, name, data)
        expect(status == 202, f"an upload was answered {status}")
    return time.monotonic() - began


def _measure_live(system: System) -> float:
    began = time.monotonic()
    expect(system.call("GET", "/health/live")[0] == 200, "the web does not say that it is live")
    return time.monotonic() - began


def _measure_megabytes(web: Program) -> int:
    return max(child.memory_info().rss for child in web.process.children()) // 1_000_000


for _name, _crowd in _CROWDS.items():
    fault(_name, short=("sqlite",) if _crowd.count == 2_000 else ())(_make(_crowd))
