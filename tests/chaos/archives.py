"""Faults of archives: each attacks the unpacker, and another lab's archive that comes after it must lose little."""

import dataclasses
import shutil
import time
import uuid
import zlib

import sqlalchemy as sa

from dermq import archives, batches, db, storage
from dermq.models import Archive, Batch, Lab
from dermq.principals import OPERATOR
from dermq.wakeups import Queue
from tests import fakes, samples, zips
from tests.chaos.faults import Scale, Told, expect, expected, fault
from tests.chaos.system import Program, System, images, until
from tests.zips import Member

_OTHERS = 20
"""The images in the archive of the other lab."""
_SPEED = 400.0
_MOST_SECONDS_LOST = 25.0
_END_SECONDS = 120.0
_DISK_BYTES = 48_000_000
_LEFT_BYTES = storage.RESERVE_BYTES - 2_000_000


class Beside:
    """A system with one worker of each kind, and a lab whose archive takes a known time while nothing attacks."""

    def __init__(self, system: System) -> None:
        self.system = system
        system.start("reaper")
        system.start_web()
        [self.intake] = system.start_ready(Queue.INTAKE)
        system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
        self.children = _pids(self.intake)
        self._lab = system.lab()
        self.batches: list[Batch] = []
        self._calm_seconds = self._bring()

    def attack(self, data: bytes) -> uuid.UUID:
        """Upload an archive as another lab does; return its batch."""
        batch_id = self.system.create()
        path = f"/api/v1/batches/{batch_id}/archive"
        status, answer = self.system.call("PUT", path, data, "application/zip")
        expect(status == 202, f"sending the archive answered {status}: {answer}")
        return batch_id

    def measure_lost_seconds(self) -> float:
        """Return by how many seconds the lab's archive takes longer than while nothing attacks."""
        lost = max(0.0, self._bring() - self._calm_seconds)
        expect(lost <= _MOST_SECONDS_LOST, f"another lab lost {lost:.1f} s")
        return lost

    def expect_no_restart(self) -> None:
        """Raise Broken when the unpacker or its child was started again."""
        expect(self.intake.starts == 1 and _pids(self.intake) == self.children, "the unpacker was started again")

    @property
    def expected(self) -> dict[uuid.UUID, int]:
        return expected(*self.batches, images=_OTHERS)

    def _bring(self) -> float:
        started = time.monotonic()
        batch = _store(self.system, self._lab, dict(list(images().items())[:_OTHERS]))
        self.batches.append(batch)
        self.system.finish(batch, seconds=_END_SECONDS)
        return time.monotonic() - started


def _attacked(system: System, data: bytes, told: str, *, received: int, refused: int, code: str | None) -> Told:
    """Let one archive attack, and check its end and that of another lab's archive."""
    beside = Beside(system)
    hostile = beside.attack(data)
    started = time.monotonic()
    lost = beside.measure_lost_seconds()
    until(lambda: _state(system, hostile) not in ("stored", "unpacking"), _END_SECONDS, "the archive has ended")
    seconds = time.monotonic() - started
    system.seal(hostile)
    system.finish(hostile)
    beside.expect_no_restart()
    found = system.rows(
        sa.select(Archive.received, Archive.refused, Archive.error_code, Archive.losses).where(
            Archive.batch_id == hostile
        )
    )
    expect(found == [(received, refused, code, 0)], f"the archive ended as {found}")
    expect(system.get(hostile).refused == refused, "the batch counts other refusals than its archive")
    return Told(
        f"{told}; {len(data) / 1000:,.0f} kB, over after {seconds:.1f} s; no restart",
        beside.expected | {hostile: received},
        lost,
    )


@fault("An archive with an entry without a name", short=("sqlite",))
def nameless(system: System, scale: Scale) -> Told:
    [(name, image), *_] = images(1).items()
    data = zips.build([Member(b""), Member(name.encode(), image), Member(b"", image)])
    return _attacked(system, data, "two entries refused", received=1, refused=2, code=None)


@fault("An archive whose entries overlap", short=("postgresql",))
def overlapping(system: System, scale: Scale) -> Told:
    """Every entry is the same bomb of 30 MB, in 30 kB."""
    content = samples.encoded(samples.picture(), "BMP") + bytes(30_000_000)
    size, crc = len(content), zlib.crc32(content)
    bomb = Member(b"0.bmp", method=zips.DEFLATED, packed=zips.deflated(content), size=size, local_size=size, crc=crc)
    same = [dataclasses.replace(bomb, name=b"%d.bmp" % n, same_place_as_before=True) for n in range(1, 400)]
    data = zips.build([bomb, *same])
    return _attacked(system, data, "12 GB refused before unpacking", received=0, refused=0, code="overlapping_entries")


@fault("An archive of 120,000 entries", short=("sqlite",))
def many_entries(system: System, scale: Scale) -> Told:
    data = zips.build([Member(b"%d.jpg" % n, b"x") for n in range(120_000)], count=120_000 & 0xFFFF)
    return _attacked(system, data, "refused before unpacking", received=0, refused=0, code="too_many_entries")


@fault("An archive of 20,000 entries that are refused", short=("postgresql",))
def refused_entries(system: System, scale: Scale) -> Told:
    count = 20_000 if scale.times > 3 else 5_000
    data = zips.build([Member(b"%d.jpg" % n, b"no image %d" % n, zips.DEFLATED) for n in range(count)])
    return _attacked(system, data, f"{count:,} refused one by one", received=0, refused=count, code=None)


@fault("A disk too small to unpack", short=("sqlite",), disk_bytes=_DISK_BYTES)
def too_small(system: System, scale: Scale) -> Told:
    """The time lost is that of the waiting archive after there is space again; uploads of others go on meanwhile."""
    beside = Beside(system)
    ballast, files = system.folder / "ballast", dict(list(images().items())[:100])
    with ballast.open("wb") as file:
        file.write(b"\0" * (shutil.disk_usage(system.folder).free - _LEFT_BYTES))
    waiting = beside.attack(samples.archive(files))
    until(lambda: _code(system, waiting) == "storage_full", 60, "the archive says why it waits")
    _, shown = system.call("GET", f"/api/v1/batches/{waiting}/archives")
    expect(shown["archives"][0]["waiting"]["code"] == "storage_full", f"the API shows {shown}")
    _, ready = system.call("GET", "/health/ready")
    expect(not ready["checks"]["storage"]["ok"], f"readiness shows {ready}")
    status, _ = system.put(waiting, "single.jpg", files[next(iter(files))])
    expect(status == 202, f"an upload beside it answered {status}")
    time.sleep(5)  # the disk stays full for a while
    expect(system.get(waiting).received == 1, "something was unpacked without space")
    ballast.unlink()
    freed = time.monotonic()
    system.seal(waiting)
    system.finish(waiting, seconds=_END_SECONDS)
    resumed = time.monotonic() - freed
    expect(resumed <= _MOST_SECONDS_LOST, f"the archive took {resumed:.1f} s after there was space")
    expect(_code(system, waiting) is None, "the archive still says that it waits")
    beside.measure_lost_seconds()
    beside.expect_no_restart()
    told = f"waits as storage_full, in API and readiness; done {resumed:.1f} s after there was space; no restart"
    return Told(told, beside.expected | {waiting: len(files) + 1}, resumed)


def _store(system: System, lab: Lab, files: dict[str, bytes]) -> Batch:
    """Add an archive to a new, sealed batch as the web does, and wake the unpacker."""
    batch = fakes.create(system.sessions, lab, system.bundle, name="chaos")
    archive_id = batches.make_id()
    db.transact(system.sessions, archives.begin, batch.id, archive_id)
    with system.blobs.receive() as file:
        file.write(samples.archive(files))
        file.finish()
        archives.keep(system.sessions, system.blobs, archive_id, file)
        db.transact(system.sessions, archives.store, archive_id, file)
    db.transact(system.sessions, batches.seal, batch.id, by=OPERATOR)
    system.wakeups.send(Queue.INTAKE)
    return batch


def _state(system: System, batch_id: uuid.UUID) -> str:
    return str(system.read(sa.select(Archive.state).where(Archive.batch_id == batch_id)))


def _code(system: System, batch_id: uuid.UUID) -> str | None:
    found: str | None = system.read(sa.select(Archive.error_code).where(Archive.batch_id == batch_id))
    return found


def _pids(program: Program) -> set[int]:
    return {program.pid, *(child.pid for child in program.children())}
