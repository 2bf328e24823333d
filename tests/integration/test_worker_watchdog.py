"""The watchdog of a real worker ends it when it stalls, and only then."""

import dataclasses
import time

from dermq import bundles, db
from dermq.settings import Settings
from dermq.wakeups import Queue
from tests import fakes, servers
from tests.processes import Programs, is_alive, pool, runs, submit, until
from worker.tasks import FAILED

STALLED_SECONDS = 5
LEAVING_SECONDS = 8
"""The time for the watchdog to end the worker, on a machine with other load."""


def test_a_worker_whose_child_hangs_in_native_code_ends(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    worker = start("classify", module="tests.hung_worker", stalled_seconds=STALLED_SECONDS)
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    [child] = pool(worker)
    submit(deployed, stored, bundle)
    assert worker.wait(timeout=STALLED_SECONDS + LEAVING_SECONDS) == FAILED
    child.wait(timeout=5)
    assert list((deployed.var_dir / "run").iterdir()) == []


def test_a_worker_that_consumes_nothing_ends(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    worker = start("classify", module="tests.deaf_worker", stalled_seconds=STALLED_SECONDS)
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed, stored, bundle)
    assert worker.wait(timeout=STALLED_SECONDS + LEAVING_SECONDS) == FAILED
    assert fakes.get(stored, batch).queued == fakes.get(stored, batch).received
    assert not is_alive(stored, Queue.CLASSIFY), "an idle child says good-bye"


def test_a_worker_without_work_stays(stored: db.Sessions, start: Programs) -> None:
    worker = start("classify", module="tests.deaf_worker", stalled_seconds=STALLED_SECONDS)
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    time.sleep(STALLED_SECONDS + LEAVING_SECONDS)
    assert runs(worker)


def test_a_worker_stays_while_redis_is_unreachable(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    with servers.Valkey() as server:
        worker = start("classify", redis_url=server.url, stalled_seconds=STALLED_SECONDS)
        until(lambda: is_alive(stored, Queue.CLASSIFY))
        server.kill()
        submit(deployed, stored, bundle)
        time.sleep(STALLED_SECONDS + LEAVING_SECONDS)
        assert runs(worker)


def test_a_worker_stays_while_work_waits_for_a_bundle_that_is_not_here(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    """No reaper runs, so all wake-ups come from the watchdog."""
    worker = start("classify", stalled_seconds=STALLED_SECONDS)
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed, stored, dataclasses.replace(bundle, sha256="0" * 64))
    time.sleep(STALLED_SECONDS + LEAVING_SECONDS)
    assert runs(worker) and fakes.get(stored, batch).queued > 0


def test_a_lost_wake_up_costs_no_worker(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    worker = start("classify", stalled_seconds=STALLED_SECONDS)
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), stored, bundle)
    until(lambda: fakes.get(stored, batch).finished_at is not None)
    assert runs(worker)
