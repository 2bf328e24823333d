"""A fault, its scale, and its outcome; and the registry of the rows."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from dermq.models import Batch
from tests.chaos.system import System

EVERY = ("sqlite", "postgresql")
POSTGRESQL = ("postgresql",)


class Broken(Exception):
    """Raised when an expectation is not met."""


@dataclass(frozen=True)
class Scale:
    """The extent of the faults: large for ``make chaos``, small for ``make chaos-short``."""

    images: int
    times: int
    """The number of kills and stops. A fault that takes long does fewer."""
    seconds: float
    """The seconds for which a program is frozen."""
    rows: int
    """The number of rows in a crowded queue."""


WHOLE = Scale(images=1000, times=20, seconds=30, rows=100_000)
PART = Scale(images=200, times=3, seconds=5, rows=10_000)


@dataclass
class Told:
    """The outcome of a fault, as its function returns it."""

    done: str
    batches: dict[uuid.UUID, int] = field(default_factory=dict)
    """The number of images that each batch must hold in the end, all in a final state."""
    seconds_lost: float | None = None
    """The time beyond that of the engine alone, or the time without progress; None for a fault without work."""
    failed: int = 0
    """The images that must fail; all others must be done or cancelled."""
    rows: int = 0
    """The number of waiting rows without files."""


Run = Callable[[System, Scale], Told]


@dataclass(frozen=True)
class Fault:
    """One row of the table, for some databases."""

    name: str
    run: Run
    databases: tuple[str, ...] = EVERY
    short: tuple[str, ...] = ()
    """The databases on which ``make chaos-short`` injects it."""
    disk_bytes: int | None = None
    """The size of the system's RAM disk; None means the machine's own disk."""
    rows_only: bool = False
    """Whether the test itself claims rows without files. Then no worker can classify a canary image."""
    together: bool = False
    """Whether it mostly waits for leases and starts, so that all databases can run at the same time."""


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
    """Raise Broken when the condition is false."""
    if not holds:
        raise Broken(otherwise)


def expected(*batches: Batch, images: int) -> dict[uuid.UUID, int]:
    return {batch.id: images for batch in batches}
