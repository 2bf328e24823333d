"""Wake-ups in a real Valkey: one message until it is acknowledged, and never more than a few."""

from collections.abc import Iterator

import pytest
import redis

from dermq.settings import Settings
from dermq.wakeups import MOST_WAITING, Queue, Wakeups
from tests import servers


@pytest.fixture
def server() -> Iterator[servers.Valkey]:
    with servers.Valkey() as server:
        yield server


@pytest.fixture
def wakeups(settings: Settings, server: servers.Valkey) -> Wakeups:
    return Wakeups(settings.model_copy(update={"redis_url": server.url}))


def test_a_wakeup_is_sent_once_until_it_is_answered(wakeups: Wakeups) -> None:
    assert wakeups.send(Queue.CLASSIFY)
    assert not wakeups.send(Queue.CLASSIFY)
    assert wakeups.send(Queue.INTAKE), "each queue has its own"
    wakeups.acknowledge(Queue.CLASSIFY)
    assert wakeups.send(Queue.CLASSIFY)


def test_few_wakeups_wait_however_long_all_workers_are_busy(wakeups: Wakeups, server: servers.Valkey) -> None:
    def wait() -> int:
        return int(redis.Redis.from_url(server.url).llen(Queue.CLASSIFY.value))

    for _ in range(50):
        wakeups.send(Queue.CLASSIFY)
        wakeups.acknowledge(Queue.CLASSIFY)  # the same as when the flag expires, after a few seconds
    assert wait() == MOST_WAITING
    redis.Redis.from_url(server.url).lpop(Queue.CLASSIFY.value)
    assert wakeups.send(Queue.CLASSIFY) and wait() == MOST_WAITING
