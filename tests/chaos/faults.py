"""What a fault is, how much of it is done, and what it tells afterwards."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from dermq.models import Batch
from tests.chaos.system import System

EVERY = ("sqlite", "postgresql")
POSTGRESQL = ("postgresql",)


class Broken(Exception):
    """Raised when something was seen that must not be."""


@dataclass(frozen=True)
class Scale:
    """How much of everything: the whole for ``make chaos``, a part for ``make chaos-short``."""

    images: int
    times: int
    """Kills, stops: as often as the issue of each fault says, or a few times."""
    seconds: float
    """How long something is frozen."""
    rows: int
    """Rows in a crowded queue."""


WHOLE = Scale(images=1000, times=20, seconds=30, rows=100_000)
PART = Scale(images=200, times=3, seconds=5, rows=10_000)


@dataclass
class Told:
    """What was done, and to whom."""

    done: str
    batches: dict[uuid.UUID, int] = field(default_factory=dict)
    """Images that each batch must hold in the end, all in a final state."""
    seconds_lost: float | None = None
    """Beyond what the work would have taken at the engine's speed, or in which nothing went on; None where there is no
    work that could lose time."""
    failed: int = 0
    """Images that must end as failed; every other must be done or cancelled."""
    rows: int = 0
    """Rows without files that were waiting."""


Run = Callable[[System, Scale], Told]


@dataclass(frozen=True)
class Fault:
    """A row of the table, on some databases."""

    name: str
    run: Run
    databases: tuple[str, ...] = EVERY
    short: tuple[str, ...] = ()
    """The databases that ``make chaos-short`` does it on."""
    disk_bytes: int | None = None
    """Size of the disk that the system stands on; the machine's own when None."""
    rows_only: bool = False
    """Claims of rows without files, by the test itself: there is no worker that a canary could meet."""
    together: bool = False
    """It mostly waits, for leases and for programs that start, so that all databases may have it at once."""


FAULTS: list[Fault] = []


def fault(
    name: str,
    *,
    databases: tuple[str, ...] = EVERY,
    short: tuple[str, ...] = (),
    disk_bytes: int | None = None,
    rows_only: bool = False,
    together: bool = False,
) -> Callable[[Run], Run]:
    """Add a row to the table."""

    def add(run: Run) -> Run:
        FAULTS.append(Fault(name, run, databases, short, disk_bytes, rows_only, together))
        return run

    return add


def expect(holds: bool, otherwise: str) -> None:
    """Raise Broken unless something holds."""
    if not holds:
        raise Broken(otherwise)


def expected(*batches: Batch, images: int) -> dict[uuid.UUID, int]:
    return {batch.id: images for batch in batches}
