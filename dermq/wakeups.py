"""Names of queues and tasks, and the wake-up: a message says "there is work", SQL says which.

Redis may lose a message or deliver it twice; both are harmless. A wake-up is sent after commit, never inside a
transaction, and never fails or delays its caller.
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
"""A wake-up that nobody answered may be sent again after this long."""
MOST_WAITING = 4
"""Wake-ups that may wait in Redis: where one waits no worker is idle, and more of them would wake nobody."""
TIMEOUT_SECONDS = 0.25
BREAKER_SECONDS = 5.0
"""After a failure Redis is left alone for this long."""


class Queue(StrEnum):
    CLASSIFY = "classify"
    INTAKE = "intake"


class Task(StrEnum):
    CLASSIFY = "dermq.classify"
    INTAKE = "dermq.intake"


TASKS = {Queue.CLASSIFY: Task.CLASSIFY, Queue.INTAKE: Task.INTAKE}


def broker_url(redis_url: str) -> str:
    """The same Redis as kombu spells it."""
    return redis_url.replace("unix://", "redis+socket://", 1)


class Wakeups:
    """Sends wake-ups: one a queue until it is answered or FLAG_SECONDS have passed, and never more than a few."""

    def __init__(self, settings: Settings) -> None:
        self._redis = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._celery = Celery(broker=broker_url(settings.redis_url), set_as_current=False)
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
        """Wake the workers of ``queue``; call it only after commit. Says whether a message was sent."""
        if time.monotonic() < self._skip_until:
            return False
        try:
            if not self._redis.set(_flag(queue), 1, nx=True, ex=FLAG_SECONDS):
                return False
            if self._redis.llen(queue.value) >= MOST_WAITING:
                return False
            # A bounded retry: with retry=False kombu blocks for seconds when the connection is gone.
            self._celery.send_task(
                TASKS[queue],
                queue=queue.value,
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
            )
            return True
        except (redis.RedisError, OperationalError, OSError) as err:
            self._skip_until = time.monotonic() + BREAKER_SECONDS
            log.warning("no wake-up sent to %s, the reaper will: %s", queue, err)
            return False

    def acknowledge(self, queue: Queue) -> None:
        """Take the flag down, before the first claim, so that later work sends a new wake-up."""
        try:
            self._redis.delete(_flag(queue))
        except redis.RedisError as err:
            log.warning("the flag of %s stays up for at most %d s: %s", queue, FLAG_SECONDS, err)

    def reachable(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False


def _flag(queue: Queue) -> str:
    return f"dermq:wake:{queue}"
