"""Health checks: live after the start, ready when work can be done."""

import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import bundles, db, models
from dermq.models import Batch, Lab, Worker
from tests import api, fakes


def _seen(sessions: db.Sessions, queue: str, seconds_ago: float, *, progressed: float = 0, name: str = "1") -> None:
    at = db.now(-seconds_ago)
    row = {"name": f"{queue}-{name}", "queue": queue, "bundle": "b", "started_at": at, "seen_at": at}
    row["progressed_at"] = db.now(-max(progressed, seconds_ago))
    db.transact(sessions, lambda session: session.execute(sa.insert(Worker).values(**row)) and None)


def _wait(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, seconds: float) -> None:
    """Make an image look as if it had waited for ``seconds``."""
    fakes.fill(sessions, fakes.create(sessions, lab, bundle), 1)
    waiting = sa.update(Batch).values(touched_at=db.now(-seconds))
    db.transact(sessions, lambda session: session.execute(waiting) and None)


def test_live_needs_nothing(app: APIFlask) -> None:
    assert app.test_client().get("/health/live").get_json() == {"status": "live"}


def test_ready_when_everything_is_there(app: APIFlask, sessions: db.Sessions) -> None:
    for queue in ("classify", "intake"):
        _seen(sessions, queue, seconds_ago=20)
    answer = app.test_client().get("/health/ready")
    assert answer.status_code == 200, answer.text
    checks = answer.get_json()["checks"]
    assert set(checks) == {"database", "redis", "bundle", "storage", "worker_classify", "worker_intake"}
    assert all(check["ok"] for check in checks.values())
    assert answer.headers["Cache-Control"] == "no-store"


def test_not_ready_without_workers_or_with_silent_ones(app: APIFlask, sessions: db.Sessions) -> None:
    _seen(sessions, "classify", seconds_ago=40)
    answer = app.test_client().get("/health/ready")
    problem = api.assert_problem(answer, 503, "not_ready")
    assert [name for name, check in problem["checks"].items() if not check["ok"]] == [
        "worker_classify",
        "worker_intake",
    ]
    assert "start one" in problem["detail"]
    assert answer.headers["Retry-After"] == "5"


def test_not_ready_when_no_worker_gets_on_while_work_waits(
    app: APIFlask, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    _seen(sessions, "classify", 1, progressed=600)
    _seen(sessions, "intake", 1, progressed=600)
    assert app.test_client().get("/health/ready").status_code == 200, "idle is not stalled"
    _wait(sessions, lab, bundle, seconds=20)
    assert app.test_client().get("/health/ready").status_code == 200, "nor is work that has just come"
    _wait(sessions, lab, bundle, seconds=60)
    problem = api.assert_problem(app.test_client().get("/health/ready"), 503, "not_ready")
    assert [name for name, check in problem["checks"].items() if not check["ok"]] == ["worker_classify"]
    assert "Stalled" in problem["detail"] and "see its log" in problem["detail"]


def test_ready_while_one_worker_of_two_gets_on(
    app: APIFlask, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    _seen(sessions, "classify", 1, progressed=600)
    _seen(sessions, "classify", 1, progressed=10, name="2")
    _seen(sessions, "intake", 1)
    _wait(sessions, lab, bundle, seconds=60)
    answer = app.test_client().get("/health/ready")
    assert answer.get_json()["checks"]["worker_classify"] == {"ok": True, "detail": "2 alive, 1 stalled."}


def test_not_ready_without_redis(app: APIFlask, wakeups: fakes.Wakeups) -> None:
    wakeups.is_reachable = lambda: False  # type: ignore[method-assign]
    problem = api.assert_problem(app.test_client().get("/health/ready"), 503, "not_ready")
    assert "DERMQ_REDIS_URL" in problem["checks"]["redis"]["detail"]


def test_not_ready_before_the_migrations(app: APIFlask, sessions: db.Sessions) -> None:
    with sessions.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    problem = api.assert_problem(app.test_client().get("/health/ready"), 503, "not_ready")
    assert "alembic upgrade head" in problem["checks"]["database"]["detail"]


def test_not_ready_without_tables(app: APIFlask, sessions: db.Sessions) -> None:
    with sessions.engine.begin() as connection:
        models.Base.metadata.drop_all(connection)
    problem = api.assert_problem(app.test_client().get("/health/ready"), 503, "not_ready")
    assert not problem["checks"]["worker_classify"]["ok"]


def test_an_unreachable_database_is_reported_without_its_address(client: FlaskClient, app: APIFlask) -> None:
    engine = app.extensions["dermq"].sessions.engine

    def fail(*ignored: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("password=secret"))

    sa.event.listen(engine, "begin", fail)
    answer = app.test_client().get("/health/ready")
    sa.event.remove(engine, "begin", fail)
    problem = api.assert_problem(answer, 503, "not_ready")
    assert "DERMQ_DATABASE_URL" in problem["checks"]["database"]["detail"]
    assert "secret" not in answer.text
