"""Wake-ups: messages in Redis that tell workers that work waits. Which work it is stands in SQL (ADR 1).

Redis may lose a message or deliver it twice; both are harmless. A wake-up is sent after the commit, never inside a
transaction. It never raises, and it delays its caller by a second at most.
"""

import logging
import time
from enum import StrEnum

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from dermq.settings import Settings

log = logging.getLogger(__name__)

FLAG_SECONDS = 5
"""After this time a wake-up is sent again, even if no worker has answered the last one."""
MOST_WAITING = 4
"""Most wake-ups of one queue that wait in Redis. While one waits, no worker is idle, so more would be useless."""
TIMEOUT_SECONDS = 0.25
BREAKER_SECONDS = 5.0
"""After a failure, no wake-up is sent for this long (a circuit breaker)."""


class Queue(StrEnum):
    CLASSIFY = "classify"
    INTAKE = "intake"


class Task(StrEnum):
    CLASSIFY = "dermq.classify"
    INTAKE = "dermq.intake"


TASKS = {Queue.CLASSIFY: Task.CLASSIFY, Queue.INTAKE: Task.INTAKE}


def make_broker_url(redis_url: str) -> str:
    """Return the address of a Redis in the form that kombu reads."""
    return redis_url.replace("unix://", "redis+socket://", 1)


class Wakeups:
    """Sends wake-ups: at most one for each queue until a worker answers it or FLAG_SECONDS have passed."""

    def __init__(self, settings: Settings) -> None:
        self._redis = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._celery = Celery(broker=make_broker_url(settings.redis_url), set_as_current=False)
        self._celery.conf.update(
            broker_connection_timeout=TIMEOUT_SECONDS,
            broker_transport_options={
                "socket_timeout": TIMEOUT_SECONDS,
                "socket_connect_timeout": TIMEOUT_SECONDS,
            },
            task_ignore_result=True,
            task_serializer="json",
        )
        self._skip_until = 0.0

    def send(self, queue: Queue) -> bool:
        """Wake the workers of ``queue`` and return whether a message was sent. Call it only after the commit."""
        if time.monotonic() < self._skip_until:
            return False
        try:
            if not self._redis.set(_make_flag(queue), 1, nx=True, ex=FLAG_SECONDS):
                return False
            if self._redis.llen(queue.value) >= MOST_WAITING:
                return False
            # One retry, because with retry=False kombu blocks for seconds when the connection is gone.
            self._celery.send_task(
                TASKS[queue],
                queue=queue.value,
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
            )
            return True
        except (redis.RedisError, OperationalError, OSError) as err:
            self._skip_until = time.monotonic() + BREAKER_SECONDS
            log.warning("no wake-up was sent to %s; the reaper will send one: %s", queue, err)
            return False

    def acknowledge(self, queue: Queue) -> None:
        """Delete the flag of a queue, so that later work sends a new wake-up. Call it before the first claim."""
        try:
            self._redis.delete(_make_flag(queue))
        except redis.RedisError as err:
            log.warning("the wake-up flag of %s was not deleted and expires within %d s: %s", queue, FLAG_SECONDS, err)

    def is_reachable(self) -> bool:
        """Return whether Redis answers."""
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False


def _make_flag(queue: Queue) -> str:
    return f"dermq:wake:{queue}"
