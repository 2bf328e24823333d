"""Faults of workers: killed, frozen, stopped or hung workers, and images that kill a worker."""

import random
import signal
import time
import uuid

import sqlalchemy as sa

from dermq import imaging
from dermq.models import Archive, Batch, Image
from dermq.wakeups import Queue
from tests import samples
from tests.chaos.faults import Scale, Told, expect, expected, fault
from tests.chaos.system import Program, Supply, System, beyond, images, pause, sha256, until

_SPEED = 100.0
"""Images per second of the fake engine, slow enough that faults occur during its work."""
_SLOW = 25.0
"""Images per second of an engine that is so slow that a child is working when it is killed."""
_STEPS = 20.0
"""Images per second of an engine whose step takes 0.4 s, so that a stop comes during a step."""
_LONG_LEASE_SECONDS = 60.0
"""A long lease, so that no lease expires within the time that a stop may take."""
_MOST_TRIES = 10
"""The most tries of a kill that has to come before the work is done."""
_SLACK_SECONDS = 1.5
"""The allowance for a shared machine, added to every time limit."""


@fault("SIGKILL the pool process at random moments", short=("sqlite",), together=True)
def child_killed(system: System, scale: Scale) -> Told:
    system.start("reaper")
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_SLOW)
    chance, slowest, kills = random.Random(1), 0.0, 0
    started = time.monotonic()
    work = Supply(system, scale.images)
    while kills < scale.times:
        work.refill()
        until(lambda: bool(system.claims()) and len(worker.children()) == 1, 60, "a child at work")
        pause(0, 0.3, chance)
        held = system.claims()
        for child in worker.children():
            child.kill()
        kills += 1
        slowest = max(slowest, until(lambda held=held: not held & system.claims(), 60, "its claims are given back"))
    lost = beyond(started, work.ended(), _SLOW)
    system.finish_fast(*work.expected)
    limit = system.settings.lease_seconds + system.settings.reaper_seconds
    expect(
        slowest <= limit + _SLACK_SECONDS, f"claims came back after {slowest:.1f} s; lease and reaper take {limit:g} s"
    )
    expect(worker.starts == 1, "the worker itself ended")
    told = f"{kills} kills; claims given back within {slowest:.1f} s (lease + reaper {limit:g} s)"
    return Told(told, work.expected, lost)


@fault("SIGKILL the whole worker", short=("postgresql",))
def worker_killed(system: System, scale: Scale) -> Told:
    """Run the fault with the real engine and the current bundle."""
    system.start("reaper")
    [worker] = system.start_ready(Queue.CLASSIFY)
    times, count, kills, tries, speed = min(3, scale.times), scale.images, 0, 0, 0.0
    started = time.monotonic()
    work = Supply(system, count)
    while kills < times:
        expect(tries < _MOST_TRIES * times, f"in {tries} tries, the work was done before the kill but {kills} times")
        target = work.ended() + count // (times + 1)
        until(lambda target=target: work.ended() >= target or work.is_done(), 120, "work goes on")
        speed = speed or work.ended() / (time.monotonic() - started)
        work.refill()
        worker.signal(signal.SIGKILL, group=True)
        kills += not work.is_done()  # on a fast processor, the work may be done just before the kill
        tries += 1
    system.finish(*work.expected, seconds=300)
    told = f"{times} kills of worker and child, started again by their manager; the engine that ships"
    return Told(told, work.expected, beyond(started, sum(work.expected.values()), speed))


@fault("SIGSTOP a worker past its lease, then SIGCONT", short=("sqlite",), together=True)
def worker_frozen(system: System, scale: Scale) -> Told:
    system.start("reaper")
    [frozen] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED / 2)
    started = time.monotonic()
    batch = system.submit(images(scale.images))
    until(lambda: system.ended(batch) >= scale.images // 20, 60, "the first worker works")
    frozen.signal(signal.SIGSTOP, group=True)
    held = system.claims()
    expect(bool(held), "the frozen worker held nothing")
    system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
    until(lambda: not held & system.claims(), 60, "the frozen worker loses its lease")
    frozen.signal(signal.SIGCONT, group=True)
    woken = time.monotonic()
    until(lambda: "was lost" in system.log("classify"), 30, "the woken worker is told that its lease was lost")
    refused = time.monotonic() - woken
    system.finish(batch)
    lost = beyond(started, scale.images, _SPEED)
    told = f"frozen over {len(held)} claims; late results refused {refused:.1f} s after it woke"
    return Told(told, expected(batch, images=scale.images), lost)


def _deadly(system: System, scale: Scale, death: str, code: str) -> Told:
    """Let one of the images end every decoder; it must fail with its code, and nothing else may change."""
    files = images(scale.images)
    name = random.Random(2).choice(list(files)[scale.images // 4 :])
    system.start("reaper")
    poison = {sha256(files[name]): death}
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED * 2, poison=poison)
    [child] = worker.children()
    started = time.monotonic()
    batch = system.submit(files)
    system.finish(batch)
    lost = beyond(started, scale.images, 2 * _SPEED)
    failed = sa.select(Image.name, Image.error_code).where(Image.batch_id == batch.id, Image.state == "failed")
    found = dict(system.rows(failed))
    expect(found == {name: code}, f"failed are {found}, not the one image as {code}")
    expect(worker.starts == 1 and worker.children() == [child], "the worker or its child ended")
    charged = sa.select(sa.func.count()).select_from(Image).where(Image.suspect | (Image.solo_losses > 0))
    expect(not system.read(charged), "a claim was lost")
    told = f"{scale.images - 1} done, 1 {code}; no claim lost, the pool process lives"
    return Told(told, expected(batch, images=scale.images), lost, failed=1)


@fault("A decoder that segfaults on one image", short=("postgresql",), together=True)
def decoder_segfaults(system: System, scale: Scale) -> Told:
    return _deadly(system, scale, "segfault", "decoder_crashed")


@fault("A decoder whose memory the kernel ends", databases=("sqlite",))
def decoder_is_killed(system: System, scale: Scale) -> Told:
    return _deadly(system, scale, "kill", "decoder_crashed")


@fault("A decoder that exhausts memory on one image", short=("sqlite",), together=True)
def decoder_exhausts_memory(system: System, scale: Scale) -> Told:
    return _deadly(system, scale, "memory", "out_of_memory")


@fault("A decoder that hangs on one image", short=("sqlite",), together=True)
def decoder_hangs(system: System, scale: Scale) -> Told:
    return _deadly(system, scale, "hang", "decode_timeout")


def _deadly_engine(system: System, scale: Scale, death: str) -> Told:
    """Let one of the images end the process that has the engine; it must fail as worker_lost, and no other."""
    files = images(scale.images)
    name = random.Random(2).choice(list(files)[scale.images // 4 :])
    pixels = imaging.prepare(
        files[name], system.bundle.card.input_size, recipe_version=system.bundle.card.recipe.version
    )
    system.start("reaper")
    deadly = (sha256(pixels.tobytes()), death)
    system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED * 2, deadly_pixels=deadly)
    started = time.monotonic()
    batch = system.submit(files)
    system.finish(batch, seconds=400)
    lost = beyond(started, scale.images, 2 * _SPEED)
    failed = sa.select(Image.name, Image.error_code).where(Image.batch_id == batch.id, Image.state == "failed")
    found = dict(system.rows(failed))
    expect(found == {name: "worker_lost"}, f"failed are {found}, not the one image")
    told = f"{scale.images - 1} done, 1 worker_lost at its third end"
    return Told(told, expected(batch, images=scale.images), lost, failed=1)


@fault("An image over which the engine's process segfaults", short=("sqlite",), together=True)
def engine_segfaults(system: System, scale: Scale) -> Told:
    return _deadly_engine(system, scale, "segfault")


@fault("An image over which the engine's process is killed", databases=("postgresql",))
def engine_is_killed(system: System, scale: Scale) -> Told:
    return _deadly_engine(system, scale, "kill")


@fault("An image over which the engine hangs for ever", together=True)
def engine_hangs(system: System, scale: Scale) -> Told:
    """The watchdog ends the worker each time, which is a loss like any other."""
    return _deadly_engine(system, scale, "hang")


def _stopped(system: System, scale: Scale, *, group: bool) -> Told:
    system.start("reaper", lease_seconds=_LONG_LEASE_SECONDS)
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_STEPS, lease_seconds=_LONG_LEASE_SECONDS)
    times, slowest = min(scale.times, 10), 0.0
    started = time.monotonic()
    work = Supply(system, scale.images)
    for at in range(times):
        last = work.refill()
        slowest = max(slowest, _stop(system, worker, group=group))
        expect(system.get(last).finished_at is None, f"the work was done before stop {at + 1} of {times}")
        system.wakeups.send(Queue.CLASSIFY)
    lost = beyond(started, work.ended(), _STEPS)
    system.finish_fast(*work.expected)
    expect(slowest < 4, f"given back after {slowest:.1f} s")
    told = (
        f"{times} stops of {'its group' if group else 'the worker'}, each with a step in hand that was recorded; "
        f"the rest given back within {slowest:.1f} s (lease {_LONG_LEASE_SECONDS:g} s); none charged"
    )
    return Told(told, work.expected, lost)


def _stop(system: System, worker: Program, *, group: bool) -> float:
    """Stop a worker during a step; return the seconds until it held no claims."""
    before, pid = _done(system), worker.pid
    until(lambda: _done(system) > before, 60, "work goes on")
    until(lambda: not system.at_work.exists(), 60, "a step ends")
    until(system.at_work.exists, 60, "the next is in the engine")
    before = _done(system)
    worker.signal(signal.SIGTERM, group=group)
    seconds = until(lambda: not system.claims(), 30, "everything is given back")
    expect(_done(system) > before, "the step in hand was lost")
    charged = sa.select(sa.func.count()).select_from(Image).where(Image.suspect | (Image.solo_losses > 0))
    expect(not system.read(charged), "images were charged for a stop")
    until(lambda: worker.pid != pid, 30, "the worker ends and is started again")
    return seconds


def _done(system: System) -> int:
    """Return the done images of all batches, because a step may hold images of the canary batch."""
    return int(system.read(sa.select(sa.func.sum(Batch.done))) or 0)


@fault("SIGTERM to the worker during work", short=("sqlite",), together=True)
def worker_stopped(system: System, scale: Scale) -> Told:
    return _stopped(system, scale, group=False)


@fault("SIGTERM to its process group during work", short=("postgresql",), together=True)
def group_stopped(system: System, scale: Scale) -> Told:
    return _stopped(system, scale, group=True)


@fault("A pool process that hangs for ever", short=("sqlite",), together=True)
def child_hangs(system: System, scale: Scale) -> Told:
    """Freeze the child as if it hung in native code; the watchdog must notice it and restart the worker."""
    system.start("reaper")
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
    started = time.monotonic()
    batch = system.submit(images(scale.images))
    until(lambda: system.ended(batch) >= scale.images // 10, 60, "work goes on")
    for child in worker.children():
        child.suspend()
    frozen = time.monotonic()
    until(lambda: worker.starts == 2, 60, "the worker ends itself")
    noticed = time.monotonic() - frozen
    system.finish(batch)
    lost = beyond(started, scale.images, _SPEED)
    told = f"noticed after {noticed:.1f} s without progress (limit {system.settings.stalled_seconds:g} s); started anew"
    return Told(told, expected(batch, images=scale.images), lost)


_KILL_SECONDS = 0.25
"""The least time of unpacking between two kills, on a processor of any speed."""


def _unpacked_a_second(system: System) -> float:
    """Return the entries per second that the unpacker takes out of a small archive."""
    entries, started = _entries(200), time.monotonic()
    batch_id = _send(system, entries)
    until(lambda: system.get(batch_id).received == len(entries), 120, "a small archive is unpacked")
    seconds = time.monotonic() - started
    system.seal(batch_id)
    return len(entries) / seconds


def _entries(count: int) -> dict[str, bytes]:
    """Return files for an archive, some of them with equal bytes."""
    files = list(images(min(count, 1000)).items())
    return {f"{at // len(files)}/{files[at % len(files)][0]}": files[at % len(files)][1] for at in range(count)}


def _send(system: System, entries: dict[str, bytes]) -> uuid.UUID:
    """Upload an archive to a new batch."""
    batch_id = system.create()
    path = f"/api/v1/batches/{batch_id}/archive"
    status, _ = system.call("PUT", path, samples.archive(entries), "application/zip")
    expect(status == 202, f"sending the archive answered {status}")
    return batch_id


@fault("SIGKILL while an archive is unpacked", short=("postgresql",))
def unpacker_killed(system: System, scale: Scale) -> Told:
    system.start("reaper")
    system.start_web()
    [unpacker] = system.start_ready(Queue.INTAKE)
    times = min(3, scale.times)
    entries = _entries(max(scale.images * 2, int(_unpacked_a_second(system) * _KILL_SECONDS * (times + 3))))
    batch_id = _send(system, entries)
    started, chance, lost = time.monotonic(), random.Random(3), 0.0
    system.seal(batch_id)
    for kill in range(times):
        wanted = len(entries) * (kill + 1) // (times + 3)
        until(lambda wanted=wanted: system.get(batch_id).received >= wanted, 120, "unpacking goes on")
        pause(0, 0.1, chance)
        unpacker.signal(signal.SIGKILL, group=True)
        received = system.get(batch_id).received
        lost += until(lambda received=received: system.get(batch_id).received > received, 60, "unpacking goes on")
    until(lambda: system.get(batch_id).received == len(entries), 120, "every entry is there")
    until(
        lambda: system.read(sa.select(Archive.state).where(Archive.batch_id == batch_id)) == "done", 60, "it is closed"
    )
    unpacked = time.monotonic() - started
    archive = system.rows(
        sa.select(Archive.entries, Archive.received, Archive.unchanged, Archive.refused).where(
            Archive.batch_id == batch_id
        )
    )
    expect(archive == [(len(entries), len(entries), 0, 0)], f"the archive tells {archive}")
    system.start("classify", images_per_second=_SPEED * 10)
    system.finish(batch_id)
    told = f"{times} kills within {len(entries):,} entries; each entry once; unpacked in {unpacked:.0f} s"
    return Told(told, {batch_id: len(entries)}, lost)
