"""Whether the web lives, and whether work can be done. For operators and for whatever starts dermq."""

from collections.abc import Callable
from functools import cache, partial

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from apiflask import APIBlueprint
from flask import Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from dermq import db, errors, liveness
from dermq.models import Worker
from dermq.settings import ROOT
from dermq.wakeups import Queue
from web import services
from web.api import documents
from web.errors import PROBLEM_JSON, RETRY_SECONDS, respond
from web.services import Services

blueprint = APIBlueprint(
    "health", __name__, url_prefix="/health", tag={"name": "Health", "description": "For operators."}
)


class Live(BaseModel):
    """That the process answers."""

    status: str


class Check(BaseModel):
    """One thing that is needed to do work, and what to do when it is not there."""

    ok: bool
    detail: str


class Ready(BaseModel):
    """Each thing that is needed to do work."""

    status: str
    checks: dict[str, Check]


@blueprint.get("/live")
@blueprint.output(Live, example={"status": "live"})
def live() -> dict[str, str]:
    """Say that the web process answers."""
    return {"status": "live"}


@blueprint.get("/ready")
@blueprint.output(Ready)
@blueprint.doc(
    responses={
        503: documents.content(
            PROBLEM_JSON,
            {"$ref": "#/components/schemas/Problem"},
            "Work cannot be done yet; `checks` says what is missing and what to do.",
        )
    }
)
def ready() -> Ready | Response:
    """Say whether work can be done: database, Redis, a worker of each kind, a bundle."""
    checks = examine(services.current())
    missing = [f"{name}: {check.detail}" for name, check in checks.items() if not check.ok]
    if not missing:
        return Ready(status="ready", checks=checks)
    shown = {name: check.model_dump() for name, check in checks.items()}
    return respond(503, "not_ready", " ".join(missing), {"Retry-After": str(RETRY_SECONDS)}, checks=shown)


@blueprint.after_request
def _never_keep(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def examine(here: Services) -> dict[str, Check]:
    """Look at everything that is needed to do work."""
    database = _checked(partial(_examine_database, here.sessions))
    checks = {"database": database, "redis": _examine_redis(here), "bundle": _examine_bundle(here)}
    for queue in Queue:
        checks[f"worker_{queue}"] = (
            _checked(partial(_examine_worker, here, queue))
            if database.ok
            else Check(ok=False, detail="Not known without the database.")
        )
    return checks


def _checked(examination: Callable[[], Check]) -> Check:
    try:
        return examination()
    except (SQLAlchemyError, errors.DermqError):
        return Check(ok=False, detail="The database does not answer; see DERMQ_DATABASE_URL and the database's log.")


def _examine_database(sessions: db.Sessions) -> Check:
    # Past db.read, which tries again for seconds: this question is asked again anyway.
    with sessions.reading() as session:
        revision = MigrationContext.configure(session.connection()).get_current_revision()
    if revision != _newest_revision():
        return Check(ok=False, detail=f"The tables are at revision {revision}; run `alembic upgrade head`.")
    return Check(ok=True, detail=f"Answers, at revision {revision}.")


@cache
def _newest_revision() -> str | None:
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_current_head()


def _examine_redis(here: Services) -> Check:
    if here.wakeups.reachable():
        return Check(ok=True, detail="Answers.")
    return Check(ok=False, detail="Redis does not answer; see DERMQ_REDIS_URL. Work waits for the reaper meanwhile.")


def _examine_bundle(here: Services) -> Check:
    try:
        bundle = here.bundle()
    except errors.Unfit as err:
        return Check(ok=False, detail=f"{err.detail} See DERMQ_BUNDLES_DIR.")
    return Check(ok=True, detail=f"{bundle.name} {bundle.version}.")


def _examine_worker(here: Services, queue: Queue) -> Check:
    settings = here.settings
    with here.sessions.reading() as session:
        alive = liveness.list_alive(session, settings, Worker.queue == queue.value)
        waited_seconds = liveness.measure_waited_seconds(session, queue)
    stalled = sum(pulse.is_stalled(waited_seconds, settings) for pulse in alive)
    if not alive:
        detail = f"No {queue} worker gave a sign of life in {settings.worker_gone_seconds:g} s"
        return Check(ok=False, detail=f"{detail}; start one and see its log.")
    if stalled == len(alive):
        detail = f"Stalled: no {queue} worker got on in {settings.stalled_seconds:g} s while work waited"
        return Check(ok=False, detail=f"{detail}; each ends by itself to be started again: see its log.")
    return Check(ok=True, detail=f"{len(alive)} alive, {stalled} stalled.")
