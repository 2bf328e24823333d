"""Faults of the broker: duplicated, lost and delayed messages, a frozen server, lost data."""

import statistics
import threading
import time
import uuid

import redis

from dermq.wakeups import MOST_WAITING, Queue
from tests.chaos.faults import Scale, Told, expect, expected, fault
from tests.chaos.system import Supply, System, beyond, images, until

_SPEED = 150.0
_BETWEEN_SECONDS = 0.2
"""The pause between uploads while Valkey is frozen, so that the processor is free for the rest of the work."""
_RESUMED_SECONDS = 30.0
_PART_SECONDS = 3.0
"""The least time that the worker needs for a third of the images, so that it outlasts Valkey's absence."""
_MOST_MESSAGES = 3 * MOST_WAITING
"""The greatest number of waiting messages, each of them tripled."""


def _delivered(system: System, scale: Scale, times: list[int], what: str) -> Told:
    system.start("reaper", messages=times)
    system.start_ready(Queue.CLASSIFY, 2, images_per_second=_SPEED / 2, messages=times)
    with _watched(system) as waiting:
        started = time.monotonic()
        batch = system.submit(images(scale.images), wake=False)
        system.finish(batch)
        lost = beyond(started, scale.images, _SPEED)
    expect(waiting[0] <= _MOST_MESSAGES, f"{waiting[0]} messages waited at one time")
    told = f"{what}; at most {waiting[0]} messages waited"
    return Told(told, expected(batch, images=scale.images), lost)


@fault("Every message delivered three times", short=("sqlite",))
def messages_tripled(system: System, scale: Scale) -> Told:
    return _delivered(system, scale, [3], "wake-ups of reaper and workers tripled")


@fault("Every second message lost", short=("postgresql",))
def messages_lost(system: System, scale: Scale) -> Told:
    return _delivered(system, scale, [0, 1], "every second wake-up of reaper and workers lost")


@fault("Valkey frozen", short=("sqlite",))
def valkey_frozen(system: System, scale: Scale) -> Told:
    """A frozen server accepts connections and never answers, which is worse than none."""
    speed = scale.images / scale.seconds
    system.start("reaper")
    system.start_web()
    system.start_ready(Queue.CLASSIFY, images_per_second=speed)
    uploads = system.create()
    work = Supply(system, scale.images)
    calm = [_upload(system, uploads, at) for at in range(10)]
    started = time.monotonic()
    with system.valkey.frozen():
        slow, polls = list[float](), list[float]()
        while time.monotonic() - started < scale.seconds:
            last = work.refill()
            slow.append(_upload(system, uploads, len(calm) + len(slow)))
            polls.append(_poll(system, uploads))
            time.sleep(_BETWEEN_SECONDS)
        expect(system.get(last).finished_at is None, "the work was done before Valkey woke")
    ended = work.ended()
    resumed = until(lambda: work.ended() > ended, _RESUMED_SECONDS, "work goes on after Valkey woke")
    lost = beyond(started, work.ended() + system.ended(uploads), speed)
    system.seal(uploads)
    system.finish_fast(*work.expected, uploads)
    requests, sent = slow + polls, len(calm) + len(slow)
    expect(max(requests) < 1, f"a request took {max(requests):.2f} s while Valkey was frozen")
    told = (
        f"{scale.seconds:g} s; {len(requests)} requests, slowest {max(requests):.2f} s, median "
        f"{statistics.median(requests):.3f} s (before: {statistics.median(calm):.3f} s); work goes on {resumed:.1f} s "
        f"after it woke; {sent} uploads"
    )
    return Told(told, {**work.expected, uploads: sent}, lost)


@fault("Valkey killed and restarted empty, three times", short=("postgresql",))
def valkey_restarted(system: System, scale: Scale) -> Told:
    system.start("reaper")
    speed = min(_SPEED / 3, scale.images / 3 / _PART_SECONDS)
    system.start_ready(Queue.CLASSIFY, images_per_second=speed)
    started, backs, submitted = time.monotonic(), list[float](), dict[uuid.UUID, int]()
    files = list(images(scale.images).items())
    for part in (files[0::3], files[1::3], files[2::3]):
        batch = system.submit(dict(part))
        submitted[batch.id] = len(part)
        until(lambda batch=batch, part=part: system.ended(batch) >= len(part) // 4, 60, "work goes on")
        system.valkey.kill()
        time.sleep(1)
        expect(system.get(batch).finished_at is None, "the work was done before Valkey was back")
        system.valkey.start()
        backs.append(_done_alone(system, submitted))  # by the drain in progress, which needs no message
        system.finish(*submitted, seconds=60)
        backs.append(_done_alone(system, submitted))  # by the next one, which a message of the new Valkey begins
    told = "back to work " + ", ".join(f"{back:.1f}" for back in backs) + " s after its return"
    expect(max(backs) < _RESUMED_SECONDS, told)
    return Told(told, submitted, beyond(started, sum(submitted.values()), speed))


def _done_alone(system: System, submitted: dict[uuid.UUID, int]) -> float:
    """Return the seconds until an image is done for which only the reaper sends a message."""
    started = time.monotonic()
    batch = system.submit(images(1), wake=False)
    submitted[batch.id] = 1
    system.finish(batch, seconds=60)
    return time.monotonic() - started


def _upload(system: System, batch: uuid.UUID, at: int) -> float:
    """Return the seconds that one upload takes."""
    started = time.monotonic()
    status, _ = system.put(batch, f"{at}.jpg", list(images(1000).values())[at % 1000])
    expect(status == 202, f"an upload answered {status}")
    return time.monotonic() - started


def _poll(system: System, batch: uuid.UUID) -> float:
    """Return the seconds that one request of the status takes."""
    started = time.monotonic()
    status, _ = system.call("GET", f"/api/v1/batches/{batch}")
    expect(status == 200, f"a poll answered {status}")
    return time.monotonic() - started


class _watched:  # noqa: N801 - used as a context
    """Records the greatest number of messages that waited in the queues at one time."""

    def __init__(self, system: System) -> None:
        self._redis = redis.Redis.from_url(system.settings.redis_url)
        self._ended = threading.Event()
        self._most = [0]

    def __enter__(self) -> list[int]:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self._most

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._redis.close()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self._most[0] = max(self._most[0], sum(int(self._redis.llen(queue.value)) for queue in Queue))
