"""Faults of one lab's files, which must cost another lab next to nothing."""

import contextlib
import time
from collections.abc import Callable

import psutil
import sqlalchemy as sa

from dermq import batches, db, errors
from dermq.models import Batch, Image
from dermq.principals import OPERATOR
from dermq.wakeups import Queue
from tests import bombs, fakes, samples
from tests.chaos.faults import Scale, Told, expect, fault
from tests.chaos.system import Program, System, images, until

_SPEED = 200.0
"""Images per second of the fake engine."""
_OTHERS = 200
_MOST_LOST_SECONDS = 25.0
_MOST_DECODER_BYTES = 250_000_000
_TEXT = "this file hangs"


def _hanging(at: int) -> bytes:
    """A valid image over which every decoder of this system hangs."""
    comment = f"{_TEXT} {at}".encode()
    return b"\xff\xd8\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + samples.jpeg()[2:]


def _scans(at: int) -> bytes:
    """A JPEG of 20,000 scans, each file with other bytes."""
    return bombs.scans(20_000, 800) + at.to_bytes(4, "big")


def _beside(system: System, count: int, make: Callable[[int], bytes], code: str) -> Told:
    """Submit hostile files of one lab, then images of another, and compare with the time that these take alone."""
    system.start("reaper")
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED, poison={f"text:{_TEXT}": "hang"})
    files = images(_OTHERS)
    alone, before = _time(system, files)
    hostile = system.submit({f"{at}.jpg": make(at) for at in range(count)}, sealed=True)
    until(lambda: system.get(hostile).queued < count, 60, "the hostile images are in work")
    time.sleep(2 * system.settings.worker_seen_seconds)
    beside, after = _time(system, files)
    lost = max(0.0, beside - alone)
    expect(lost <= _MOST_LOST_SECONDS, f"another lab lost {lost:.1f} s")
    until(lambda: _failed(system, hostile, code) > 0, 120, "a hostile image fails with its code")
    with contextlib.suppress(errors.Conflict):  # all have ended already
        db.transact(system.sessions, batches.cancel, hostile.id, by=OPERATOR)
    system.finish(hostile)
    failed = _failed(system, hostile, code)
    expect(system.get(hostile).failed == failed, f"images failed with another code than {code}")
    expect(worker.starts == 1, "the worker itself ended")
    charged = sa.select(sa.func.count()).select_from(Image).where(Image.suspect | (Image.solo_losses > 0))
    expect(not system.read(charged), "a claim was lost")
    told = f"{_OTHERS} images of another lab in {beside:.1f} s, alone in {alone:.1f} s; {failed} of {count} {code}"
    return Told(told, {before.id: _OTHERS, after.id: _OTHERS, hostile.id: count}, lost, failed=failed)


def _time(system: System, files: dict[str, bytes]) -> tuple[float, Batch]:
    """Return the seconds from the submission of some images to their end."""
    started = time.monotonic()
    batch = system.submit(files)
    system.finish(batch)
    return time.monotonic() - started, batch


def _failed(system: System, batch: Batch, code: str) -> int:
    wanted = sa.select(sa.func.count()).where(Image.batch_id == batch.id, Image.error_code == code)
    return int(system.read(wanted))


@fault("A thousand images of one lab that hang", short=("sqlite",))
def a_lab_hangs(system: System, scale: Scale) -> Told:
    return _beside(system, 1_000, _hanging, "decode_timeout")


@fault("A thousand bombs of scans of one lab", databases=("sqlite",))
def a_lab_bombs(system: System, scale: Scale) -> Told:
    one = _scans(0)
    return _beside(system, 1_000, lambda at: one[:-4] + at.to_bytes(4, "big"), "too_many_parts")


@fault("Images whose sides are bombs", short=("sqlite",), databases=("sqlite",))
def sides(system: System, scale: Scale) -> Told:
    """Some sizes stand where the web looks, the others are found by the decoders."""
    system.start("reaper")
    [worker] = system.start_ready(Queue.CLASSIFY, images_per_second=_SPEED)
    batch = fakes.create(system.sessions, system.lab(), system.bundle, name="bombs")
    try:
        fakes.add(system.sessions, system.blobs, system.settings, batch, {"thin.png": bombs.thin_png()})
        expect(False, "the web accepted 1 x 50,000,000 pixels")
    except errors.TooLarge as err:
        expect(err.code == "side_too_long", f"the web answers {err.code}")
    files = {f"{at}.jpg": bombs.jpeg_with_size_behind(65_000, 500 + at) for at in range(scale.images // 2)}
    files |= {f"{at}.tif": bombs.tiff(*bombs.size_entries(1, 50_000_000 - at)) for at in range(scale.images // 2)}
    fakes.add(system.sessions, system.blobs, system.settings, batch, files)
    system.wakeups.send(Queue.CLASSIFY)
    most = 0
    started = time.monotonic()
    while system.ended(batch) < len(files) and time.monotonic() - started < 120:
        most = max(most, _decoder_bytes(worker))
        time.sleep(0.05)
    db.transact(system.sessions, batches.seal, batch.id, by=OPERATOR)
    system.finish(batch)
    failed = _failed(system, batch, "side_too_long")
    expect(failed == len(files), f"{failed} of {len(files)} failed as side_too_long")
    expect(0 < most < _MOST_DECODER_BYTES, f"a decoder had {most / 1e6:.0f} MB")
    told = f"1 x 50,000,000 refused by the web; {failed} by decoders, which had at most {most / 1e6:.0f} MB"
    return Told(told, {batch.id: len(files)}, None, failed=failed)


def _decoder_bytes(worker: Program) -> int:
    """Return the resident memory of the largest decoder."""
    sizes = [0]
    for child in worker.children():
        for each in child.children():
            try:
                sizes.append(each.memory_info().rss)
            except psutil.Error:
                continue
    return max(sizes)
