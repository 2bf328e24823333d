"""``make chaos`` and ``make chaos-short``: inject every fault into a whole system and print its cost.

Each fault prints one row for each database. The exit status is 1 when an invariant is broken or a row is skipped.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tests import servers
from tests.chaos import (  # noqa: F401 - the imports register the rows
    archives,
    broker,
    connections,
    databases,
    decoding,
    lanes,
    uploads,
    workers,
)
from tests.chaos.faults import EVERY, FAULTS, PART, WHOLE, Broken, Fault, Scale, expected
from tests.chaos.system import CANARIES, Census, System, images
from tests.conftest import SHARED

_WIDTHS = (46, 10, 7, 5, 8, 8, 7)


@dataclass(frozen=True)
class Row:
    """The outcome of one fault on one database."""

    fault: str
    database: str
    told: str
    census: Census
    seconds_lost: float | None
    broken: str = ""


class Bench:
    """The servers that the systems of all faults share."""

    def __init__(self, postgresql: servers.Postgresql) -> None:
        self._postgresql = postgresql

    @contextlib.contextmanager
    def system(self, database: str, disk_bytes: int | None) -> Iterator[System]:
        """Yield a fresh system with an empty, migrated database."""
        with (
            tempfile.TemporaryDirectory(prefix="dermq-chaos-logs-") as logs,
            _folder(disk_bytes) as folder,
            servers.Valkey() as valkey,
            self._database(database, folder) as url,
            System(folder, Path(logs), url, valkey) as system,
        ):
            system.postgresql = self._postgresql if database == "postgresql" else None
            yield system

    @contextlib.contextmanager
    def _database(self, kind: str, folder: Path) -> Iterator[str]:
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'dermq.sqlite3'}"
            servers.migrate(url)
            yield url
            return
        server = sa.make_url(self._postgresql.url).set(drivername="postgresql+psycopg")
        with servers.postgresql_copy(server, template="template1") as url:
            servers.migrate(url)
            yield url


@contextlib.contextmanager
def _folder(disk_bytes: int | None) -> Iterator[Path]:
    """Yield a temporary folder; with a size, it is on a RAM disk of that size."""
    with tempfile.TemporaryDirectory(prefix="dermq-chaos-") as name:
        if disk_bytes is None:
            yield Path(name)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a part of it, for CI")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="one database only")
    options = parser.parse_args()
    scale = PART if options.short else WHOLE
    wanted = {
        fault: [
            database
            for database in (fault.short if options.short and not options.database else fault.databases)
            if options.only.lower() in fault.name.lower() and options.database in (None, database)
        ]
        for fault in FAULTS
    }
    binaries = servers.postgresql_binaries()
    if not SHARED.is_dir() or binaries is None:
        rows = sum(map(len, wanted.values()))
        print("Chaos needs PostgreSQL's initdb and pg_ctl, and ../shared beside this clone.", file=sys.stderr)
        print(f"{rows} faults, 0 lost, 0 doubled, {rows} skipped")
        return 1
    images()  # once, for all rows
    started = time.monotonic()
    _print("fault", "database", "images", "lost", "doubled", "s lost", "s taken", "what was seen")
    with servers.Postgresql(binaries) as postgresql:
        bench = Bench(postgresql)
        done = [row for fault, chosen in wanted.items() for row in _do_all(bench, fault, chosen, scale)]
    return _close(done, time.monotonic() - started)


def _do_all(bench: Bench, fault: Fault, chosen: list[str], scale: Scale) -> list[Row]:
    """Run the rows of a fault, one after the other or at the same time."""
    with ThreadPoolExecutor(len(EVERY) if fault.together else 1) as side_by_side:
        return list(side_by_side.map(lambda database: _do(bench, fault, database, scale), chosen))


def _do(bench: Bench, fault: Fault, database: str, scale: Scale) -> Row:
    """Run one row; the row contains the error when something fails."""
    broken, told, census, lost, started = "", "", Census(0, 0, 0, {}, []), None, time.monotonic()
    try:
        with bench.system(database, fault.disk_bytes) as system:
            try:
                canary = None if fault.rows_only else system.canary()
                found = fault.run(system, scale)
                told, lost = found.done, found.seconds_lost
                if canary is None:
                    census = system.census_of_rows(found.rows)
                else:
                    system.finish(canary)
                    census = system.census(found.batches | expected(canary, images=CANARIES))
                broken = _breach(census, found.failed)
            except Exception:
                _show_logs(system)
                raise
    except Broken as err:
        broken = str(err)
    except Exception as err:  # the other rows must run after every error
        traceback.print_exc()
        broken = f"{type(err).__name__}: {err}"
    row = Row(fault.name, database, told, census, lost, broken)
    seen = f"BROKEN: {broken}" if broken else told
    taken = time.monotonic() - started
    shown = "-" if lost is None else f"{lost:.1f}"
    _print(fault.name, database, census.images, census.lost, census.doubled, shown, f"{taken:.0f}", seen)
    return row


def _breach(census: Census, failed: int) -> str:
    """Return the broken invariants by the images and the audit, or an empty text when all hold."""
    said = [f"{census.lost} lost"] if census.lost else []
    said += [f"{census.doubled} doubled"] if census.doubled else []
    if (other := census.states.get("failed", 0)) != failed:
        said.append(f"{other} failed, not {failed}")
    return "; ".join(said + census.breaches[:3])


def _show_logs(system: System) -> None:
    for log in sorted(system.logs.glob("*.log")):
        tail = log.read_text(errors="replace").splitlines()[-60:]
        print(f"-- {log.name}", *tail, sep="\n   ", file=sys.stderr)


def _close(rows: list[Row], seconds: float) -> int:
    lost, doubled = sum(row.census.lost for row in rows), sum(row.census.doubled for row in rows)
    broken = [row for row in rows if row.broken]
    print(f"{seconds / 60:.1f} minutes")
    for row in broken:
        print(f"BROKEN: {row.fault} on {row.database}: {row.broken}")
    print(f"{len(rows)} faults, {lost} lost, {doubled} doubled, 0 skipped")
    return 1 if broken or lost or doubled or not rows else 0


def _print(*cells: object) -> None:
    shown = [str(cell).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
    print(*shown, *cells[len(_WIDTHS) :], flush=True)


if __name__ == "__main__":
    sys.exit(main())
