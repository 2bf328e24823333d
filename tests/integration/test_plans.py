"""The query plans of a claim: the databases use the partial indexes, with 100,000 waiting images and many old ones."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from dermq import batches, bundles, db, labs
from dermq.lifecycle import ImageState
from dermq.models import Batch, Image
from dermq.queue import claims, leases
from dermq.queue.claims import Claimant
from tests import fakes, scenarios

OLD_BATCHES = 2_000


@pytest.fixture
def who(sessions: db.Sessions, bundle: bundles.Bundle) -> Claimant:
    """A claimant in a database with many rows and up-to-date statistics."""
    found = scenarios.claimant(sessions, bundle)
    owners = [db.transact(sessions, labs.add, f"lab {at}") for at in range(5)]
    submitted = [fakes.create(sessions, owners[at % 5], bundle) for at in range(20)]
    scenarios.fill(sessions, submitted, 5_000)
    _age(sessions, owners[0].id, found.bundle_id)
    for _ in range(3):
        assert db.transact(sessions, claims.take, found, 64) is not None
    with sessions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return found


def test_a_claim_finds_its_rows_by_the_partial_indexes(sessions: db.Sessions, who: Claimant) -> None:
    lease = db.transact(sessions, claims.take, who, 64)
    assert lease is not None
    some = scenarios.predictions(lease.images[:8], who)
    found = plans(
        sessions,
        lambda: db.transact(sessions, claims.take_suspect, who),
        lambda: db.transact(sessions, claims.take, who, 64),
        lambda: db.transact(sessions, leases.renew, lease.token, 60),
        lambda: db.transact(sessions, claims.record, lease.token, some),
        lambda: db.transact(sessions, claims.give_back, lease.token, lost=True),
        lambda: db.read(sessions, claims.list_expired, 100),
    )
    assert "ix_image_suspect" in plan_of(found, "image.suspect AND")
    assert "ix_image_queued" in plan_of(found, "image.suspect IS")
    assert "ix_batch_unfinished" in plan_of(found, "SELECT batch.id, batch.lab_id, batch.urgent")
    assert "ix_image_claimed" in plan_of(found, "WHERE image.claim_token")
    assert "ix_image_claimed" in plan_of(found, "DELETE FROM claim")
    assert "image" not in plan_of(found, "claim.expires_at <"), "leases that ran out are found among the leases"
    assert not scans(found)


Plans = list[tuple[str, str]]


def plans(sessions: db.Sessions, *acts: Callable[[], object]) -> Plans:
    """Return the statements of a block and their query plans, which do not depend on parameters."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "DELETE")):
            seen.append((" ".join(statement.split()), parameters))

    sa.event.listen(sessions.engine, "before_cursor_execute", note)
    for act in acts:
        act()
    sa.event.remove(sessions.engine, "before_cursor_execute", note)
    explain = _explain_on_sqlite if sessions.engine.dialect.name == "sqlite" else _explain_on_postgresql
    with sessions.engine.connect() as connection:
        return [(statement, explain(connection, statement, parameters)) for statement, parameters in seen]


def plan_of(found: Plans, part: str) -> str:
    """Return the plan of the statements that contain ``part``."""
    matching = [plan for statement, plan in found if part in statement]
    assert matching, f"nothing holds {part!r}"
    return "\n".join(matching)


def scans(found: Plans) -> Plans:
    """Return the steps of a plan that read a whole large table."""
    return [(statement, plan) for statement, plan in found if re.search(r"(SCAN|Seq Scan on) (image|batch)\b", plan)]


def _explain_on_sqlite(connection: Connection, statement: str, parameters: Any) -> str:
    return "\n".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))


def _explain_on_postgresql(connection: Connection, statement: str, parameters: dict[str, Any]) -> str:
    """Return PostgreSQL's generic plan of a prepared statement, which does not depend on the parameters."""
    names = list(parameters)
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", statement)
    given = ", ".join("NULL" if parameters[name] is None else f"'{parameters[name]}'" for name in names)
    with _prepared(connection, numbered):
        plan = connection.exec_driver_sql(f"EXPLAIN EXECUTE asked{f'({given})' if given else ''}")
        return "\n".join(row[0] for row in plan)


@contextmanager
def _prepared(connection: Connection, statement: str) -> Iterator[None]:
    connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE asked AS {statement}")
    yield
    connection.exec_driver_sql("DEALLOCATE asked")


def _age(sessions: db.Sessions, lab_id: int, bundle_id: int) -> None:
    """Add batches that finished long ago, with their images."""
    ids = [batches.make_id() for _ in range(OLD_BATCHES)]
    long_ago = datetime.now(UTC) - timedelta(days=30)
    times = dict.fromkeys(("created_at", "touched_at", "sealed_at", "finished_at"), long_ago)
    whose = {"lab_id": lab_id, "bundle_id": bundle_id, "name": "old"}
    file = {"sha256": "0" * 64, "bytes": 1, "width": 1, "height": 1, "state": ImageState.DONE}

    def work(session: Session) -> None:
        session.execute(sa.insert(Batch), [{"id": each, "received": 10, "done": 10, **whose, **times} for each in ids])
        rows = [{"batch_id": each, "position": n, "name": f"{n}.jpg", **file} for each in ids for n in range(1, 11)]
        session.execute(sa.insert(Image), rows)

    db.transact(sessions, work)
