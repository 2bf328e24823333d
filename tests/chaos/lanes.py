"""Load: many workers and reapers at the same time, many labs, and very many rows."""

import random
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from dermq import batches, db, errors
from dermq.models import Batch, Image
from dermq.principals import OPERATOR
from dermq.wakeups import Queue
from tests import samples, scenarios
from tests.chaos.faults import POSTGRESQL, Scale, Told, expect, fault
from tests.chaos.system import System, beyond, images

_THREADS = 10
_LEAST_OPEN = 5
"""The least number of batches with work left while the threads act."""
_SPEED = 60.0
"""Images per second of each worker."""
_MOST_SLOWER = 1.5
"""The greatest factor by which a claim among a million rows may be slower than one among a thousand."""


@fault("Two reapers, four workers, cancels and retries from ten threads", short=("postgresql",))
def crowd(system: System, scale: Scale) -> Told:
    """Every tenth image cannot be decoded, so that there is something to retry."""
    for _ in range(2):
        system.start("reaper")
    system.start_ready(Queue.CLASSIFY, 4, images_per_second=_SPEED)
    good, each = list(images(1000).items()), scale.images // 20
    lots = [
        dict(good[at * each : (at + 1) * each])
        | {f"bad-{bad}.jpg": samples.truncated_jpeg() for bad in range(each // 10)}
        for at in range(20)
    ]
    submitted = [system.submit(lot) for lot in lots]  # and further ones while the threads act
    ended, met = threading.Event(), list[str]()

    def disturb(seed: int) -> None:
        chance = random.Random(seed)
        while not ended.is_set():
            batch = chance.choice(submitted[5:])  # the first five are never chosen
            act = chance.choice([batches.cancel, batches.retry])
            try:
                _act(system, act, batch, chance)
            except errors.Conflict:
                pass  # a normal response to a lab, for example: already cancelled
            except Exception as err:
                met.append(repr(err))
            time.sleep(chance.uniform(0, 0.2))

    threads = [threading.Thread(target=disturb, args=(seed,), daemon=True) for seed in range(_THREADS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while time.monotonic() - started < min(10.0, scale.seconds):
        time.sleep(0.2)
        if sum(system.get(batch).finished_at is None for batch in submitted) < _LEAST_OPEN:
            submitted.append(system.submit(lots[len(submitted) % len(lots)]))
    ended.set()
    for thread in threads:
        thread.join()
    system.finish(*submitted)
    expect(not met, f"met {met[:3]}")
    seconds = time.monotonic() - started
    counts = {batch.id: len(lots[at % len(lots)]) for at, batch in enumerate(submitted)}
    cancelled = {batch.id for batch in submitted if system.get(batch).cancelled_at is not None}
    failed = system.rows(sa.select(Image.batch_id, Image.name, Image.error_code).where(Image.state == "failed"))
    others = [(name, code) for _, name, code in failed if not name.startswith("bad-") or code != "damaged"]
    expect(not others, f"failed are also {others[:3]}")
    told = (
        f"{len(cancelled)} of {len(submitted)} batches cancelled; "
        f"{len(failed)} failed, all bad and damaged; {seconds:.0f} s"
    )
    kept = sum(batch_id not in cancelled for batch_id, _, _ in failed)
    expect(kept == (len(submitted) - len(cancelled)) * (each // 10), f"{told}; {kept} of them in the batches left")
    return Told(told, counts, beyond(started, sum(counts.values()), 4 * _SPEED), failed=len(failed))


def _act(system: System, act: Callable[..., object], batch: Batch, chance: random.Random) -> None:
    if act is batches.cancel and chance.random() < 0.9:
        return  # otherwise no work would be left
    db.transact(system.sessions, act, batch.id, by=OPERATOR)
    system.wakeups.send(Queue.CLASSIFY)


@fault("A lab with a full queue, and a second one that brings ten", short=("sqlite",), rows_only=True)
def small_lab(system: System, scale: Scale) -> Told:
    return _one_round(
        scenarios.a_small_lab_behind_a_large_one(system.sessions, system.bundle, waiting=scale.rows), scale.rows + 10
    )


@fault("A lab that cancels a full queue and brings ten", short=("postgresql",), rows_only=True)
def fickle_lab(system: System, scale: Scale) -> Told:
    return _one_round(
        scenarios.a_lab_that_cancelled_comes_back(system.sessions, system.bundle, waiting=scale.rows),
        scale.rows + 5_010,
    )


@fault("A thousand old failures retried while a new lab arrives", short=("sqlite",), rows_only=True)
def retry_and_arrival(system: System, scale: Scale) -> Told:
    """Run the scenario, which asserts that a thousand images were retried."""
    return _one_round(scenarios.an_old_failure_is_retried_while_a_lab_arrives(system.sessions, system.bundle), 6_010)


def _one_round(turn: scenarios.Turn, rows: int) -> Told:
    """Return the outcome; ``rows`` is the number of rows that the scenario added, for the comparison."""
    told = f"all {turn.images} in claim {turn.claims}, after {turn.waited} of others; a round gives those {turn.round}"
    expect(turn.claims == 1 and turn.waited <= turn.round, told)
    return Told(told, rows=rows)


@fault("Labs of weights 1 and 3", short=("postgresql",), rows_only=True)
def weighted_labs(system: System, scale: Scale) -> Told:
    count = scale.images
    light, heavy = scenarios.shares(system.sessions, system.bundle, (1, 3), count=count)
    told = f"{count} claims gave them {light} and {heavy} images: 1 to {heavy / light:.2f}"
    expect(abs(heavy / light / 3 - 1) <= 0.05, told)
    return Told(told, rows=2 * 4 * count)


@fault("A cancel while a claim's transaction is open", short=("postgresql",), rows_only=True)
def cancel_during_claim(system: System, scale: Scale) -> Told:
    found = scenarios.cancel_during_a_claim(system.sessions, system.bundle)
    told = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    expect(found["received"] == found["done"] + found["cancelled"] and found["done"] <= 64, told)
    return Told(told, rows=100)


@fault("A claim among 1,000,000 rows and among 1,000", databases=POSTGRESQL, rows_only=True)
def million_rows(system: System, scale: Scale) -> Told:
    rows = 10 * scale.rows
    few, many = scenarios.claim_times(system.sessions, system.bundle, (1_000, rows))
    ratio = many.take / few.take
    told = f"{few.take:.1f} ms and {many.take:.1f} ms: {ratio:.2f} times; suspects {many.take_suspect:.1f} ms"
    expect(ratio <= _MOST_SLOWER, told)
    return Told(told, rows=rows)
