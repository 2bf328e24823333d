"""``/metrics`` shows the state of the rows in the format of Prometheus."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from prometheus_client import parser
from werkzeug.test import TestResponse

from dermq import batches, bundles, db, labs
from dermq.lifecycle import ArchiveState, BatchState, ImageState
from dermq.models import Archive, Batch, Claim, Lab, Worker
from dermq.wakeups import Queue
from tests import api, fakes

Figures = dict[tuple[str, str], float]
"""Values by the metric's name and by the value of its label, which is empty when there is no label."""


def get(app: APIFlask) -> TestResponse:
    """Send what a scrape sends: the token that the web has made."""
    token = (app.extensions["dermq"].settings.var_dir / "metrics-token").read_text()
    answer: TestResponse = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {token}"})
    return answer


def scrape(app: APIFlask) -> Figures:
    answer = get(app)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == "text/plain" and answer.headers["Cache-Control"] == "no-store"
    found = {}
    for family in parser.text_string_to_metric_families(answer.text):
        assert family.documentation.endswith(".") and family.type == "gauge", family.name
        for sample in family.samples:
            found[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return found


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


def update(sessions: db.Sessions, batch: Batch, **values: object) -> None:
    changed = sa.update(Batch).where(Batch.id == batch.id).values(**values)
    db.transact(sessions, lambda session: session.execute(changed) and None)


def insert(sessions: db.Sessions, row: Archive | Claim | Worker) -> None:
    db.transact(sessions, lambda session: session.add(row))


def test_an_empty_system_has_every_figure(app: APIFlask) -> None:
    found = scrape(app)
    assert {value for name, value in found.items() if name[0] not in ("dermq_redis_up", "dermq_blobs_free_bytes")} == {
        0
    }
    assert found["dermq_redis_up", ""] == 1 and found["dermq_blobs_free_bytes", ""] > 0
    assert {label for name, label in found if name == "dermq_images"} == set(ImageState)
    assert {label for name, label in found if name == "dermq_batches"} == set(BatchState)
    for name in ("dermq_workers_alive", "dermq_workers_stalled", "dermq_oldest_waiting_seconds"):
        assert {label for other, label in found if other == name} == {"classify", "intake"}


def test_images_are_summed_over_batches(
    app: APIFlask, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, batch: Batch
) -> None:
    update(sessions, batch, received=15, queued=1, running=2, done=3, failed=4, cancelled=5, refused=6)
    update(sessions, fakes.create(sessions, lab, bundle), received=10, done=10, refused=1)
    found = scrape(app)
    assert {state: found["dermq_images", state] for state in ImageState} == {
        "queued": 1, "running": 2, "done": 13, "failed": 4, "cancelled": 5,
    }  # fmt: skip
    assert found["dermq_refused_files", ""] == 7


def test_batches_are_told_by_the_state_that_their_lab_sees(
    app: APIFlask, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    now = db.now()
    for values in (
        {},
        {"sealed_at": now},
        {"sealed_at": now, "received": 1, "running": 1},
        {"sealed_at": now, "received": 2, "done": 1, "queued": 1},
        {"sealed_at": now, "finished_at": now, "received": 1, "done": 1},
        {"sealed_at": now, "finished_at": now, "cancelled_at": now},
        {"sealed_at": now, "cancelled_at": now, "deleted_at": now},
    ):
        update(sessions, fakes.create(sessions, lab, bundle), touched_at=now, **values)
    with sessions.reading() as session:
        states = [batch.state for batch in session.scalars(sa.select(Batch).where(Batch.deleted_at.is_(None)))]
    found = scrape(app)
    assert {state: found["dermq_batches", state] for state in BatchState} == {s: states.count(s) for s in BatchState}
    assert found["dermq_batches", "running"] == 2


def test_a_breach_shows(app: APIFlask, sessions: db.Sessions, batch: Batch) -> None:
    update(sessions, batch, breached_at=db.now())
    assert scrape(app)["dermq_breached_batches", ""] == 1


def test_waiting_work_shows_with_its_labs_and_its_age(
    app: APIFlask, sessions: db.Sessions, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.fill(sessions, batch, 2)
    update(sessions, batch, touched_at=db.now(-100))
    other_lab = db.transact(sessions, labs.add, "other lab")
    for _ in range(2):
        fakes.fill(sessions, other := fakes.create(sessions, other_lab, bundle), 1)
    stored = {"state": ArchiveState.STORED, "created_at": other.created_at, "touched_at": other.created_at}
    insert(sessions, Archive(id=batches.make_id(), batch_id=batch.id, **stored))
    insert(sessions, Claim(token=uuid.uuid4(), worker="w", expires_at=other.created_at))
    found = scrape(app)
    assert found["dermq_waiting_labs", ""] == 2
    assert found["dermq_oldest_waiting_seconds", "classify"] == pytest.approx(100, abs=10)
    assert 0 < found["dermq_oldest_waiting_seconds", "intake"] < 30
    assert found["dermq_open_archives", ""] == 1 and found["dermq_expired_claims", ""] == 1


def test_workers_show_by_queue_with_their_progress(app: APIFlask, sessions: db.Sessions, batch: Batch) -> None:
    fakes.fill(sessions, batch, 1)
    update(sessions, batch, touched_at=db.now(-100))
    for name, seen, progressed in (("a", 1, 70), ("b", 1, 20), ("gone", 600, 600)):
        values = {"name": name, "queue": "classify", "bundle": "b", "started_at": db.now(-700)}
        row = sa.insert(Worker).values(**values, seen_at=db.now(-seen), progressed_at=db.now(-progressed))
        db.transact(sessions, lambda session, row=row: session.execute(row) and None)
    found = scrape(app)
    assert (found["dermq_workers_alive", "classify"], found["dermq_workers_stalled", "classify"]) == (2, 1)
    assert found["dermq_progress_age_seconds", "classify"] == pytest.approx(20, abs=10)
    assert found["dermq_workers_alive", "intake"] == 0 and ("dermq_progress_age_seconds", "intake") not in found


def test_an_unreachable_redis_is_shown(app: APIFlask, wakeups: fakes.Wakeups) -> None:
    wakeups.is_reachable = lambda: False  # type: ignore[method-assign]
    assert scrape(app)["dermq_redis_up", ""] == 0


def test_no_label_holds_what_a_lab_wrote(app: APIFlask, sessions: db.Sessions, batch: Batch) -> None:
    fakes.fill(sessions, batch, 1)
    families = list(parser.text_string_to_metric_families(get(app).text))
    labels = {pair for family in families for sample in family.samples for pair in sample.labels.items()}
    states, queues = {("state", s.value) for s in (*ImageState, *BatchState)}, {("queue", q.value) for q in Queue}
    assert labels <= states | queues and len(labels) > len(ImageState)


def test_one_transaction_reads_it_all(app: APIFlask) -> None:
    begun: list[object] = []
    statements: list[object] = []
    engine = app.extensions["dermq"].sessions.engine
    sa.event.listen(engine, "begin", begun.append)
    sa.event.listen(engine, "before_cursor_execute", lambda *sent: statements.append(sent[2]))
    scrape(app)
    assert len(begun) == 1 and len([sql for sql in statements if str(sql).startswith("SELECT")]) == 7


def test_an_unreachable_database_is_a_problem(app: APIFlask) -> None:
    engine = app.extensions["dermq"].sessions.engine

    def fail(*ignored: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("password=secret"))

    sa.event.listen(engine, "begin", fail)
    answer = get(app)
    sa.event.remove(engine, "begin", fail)
    api.assert_problem(answer, 503, "database_unavailable")
    assert "secret" not in answer.text and answer.headers["Retry-After"] == "5"


def test_metrics_are_for_who_has_their_token(app: APIFlask, client: FlaskClient, token: str) -> None:
    for sent in (None, "Bearer ", "Bearer wrong", f"Bearer {token}", "Basic YTpi", "Bearer \u00e9"):
        headers = {} if sent is None else {"Authorization": sent}
        answer = app.test_client().get("/metrics", headers=headers)
        api.assert_problem(answer, 401, "bad_token")
        assert "dermq_images" not in answer.text and answer.headers["WWW-Authenticate"].startswith("Bearer")
    api.assert_problem(client.get("/metrics"), 401, "bad_token")


def test_the_operator_may_choose_the_token(make_app: Callable[..., APIFlask], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("chosen-by-the-operator\n")
    app = make_app(metrics_token_file=file)
    headers = {"Authorization": "bearer chosen-by-the-operator"}
    assert app.test_client().get("/metrics", headers=headers).status_code == 200
    file.write_text("short")
    with pytest.raises(ValueError, match="16 ASCII characters"):
        make_app(metrics_token_file=file)
