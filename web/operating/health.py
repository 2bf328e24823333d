"""Health checks for operators and for what starts dermq: the web answers, and work can be done."""

from collections.abc import Callable
from functools import cache, partial

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from apiflask import APIBlueprint
from flask import Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from dermq import archives, db, errors, liveness, storage
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
    """The web process answers."""

    status: str


class Check(BaseModel):
    """Whether one thing that work needs is there, and what to do if it is not."""

    ok: bool
    detail: str


class Ready(BaseModel):
    """One check for each thing that work needs."""

    status: str
    checks: dict[str, Check]


@blueprint.get("/live")
@blueprint.output(Live, example={"status": "live"})
def live() -> dict[str, str]:
    """Check that the web process answers."""
    return {"status": "live"}


@blueprint.get("/ready")
@blueprint.output(Ready)
@blueprint.doc(
    responses={
        503: documents.describe_content(
            PROBLEM_JSON,
            {"$ref": "#/components/schemas/Problem"},
            "Work cannot be done yet; `checks` says what is missing and what to do.",
        )
    }
)
def ready() -> Ready | Response:
    """Check that work can be done: database, Redis, a bundle, space for images, and a worker of each kind."""
    checks = examine(services.get_current())
    missing = [f"{name}: {check.detail}" for name, check in checks.items() if not check.ok]
    if not missing:
        return Ready(status="ready", checks=checks)
    shown = {name: check.model_dump() for name, check in checks.items()}
    return respond(503, "not_ready", " ".join(missing), {"Retry-After": str(RETRY_SECONDS)}, checks=shown)


def examine(here: Services) -> dict[str, Check]:
    """Return a check of each thing that work needs."""
    database = _run_check(partial(_examine_database, here.sessions))
    checks = {"database": database, "redis": _examine_redis(here), "bundle": _examine_bundle(here)}
    unknown = Check(ok=False, detail="Not known without the database.")
    checks["storage"] = _run_check(partial(_examine_storage, here)) if database.ok else unknown
    for queue in Queue:
        checks[f"worker_{queue}"] = _run_check(partial(_examine_worker, here, queue)) if database.ok else unknown
    return checks


def _run_check(examination: Callable[[], Check]) -> Check:
    try:
        return examination()
    except (SQLAlchemyError, errors.DermqError):
        return Check(ok=False, detail="The database does not answer; see DERMQ_DATABASE_URL and the database's log.")


def _examine_database(sessions: db.Sessions) -> Check:
    # Not db.read, which retries for seconds; whoever asks for readiness asks again anyway.
    with sessions.reading() as session:
        revision = MigrationContext.configure(session.connection()).get_current_revision()
    if revision != _find_newest_revision():
        return Check(
            ok=False,
            detail=f"The tables are at revision {revision}, which is not the newest; run `alembic upgrade head`.",
        )
    return Check(ok=True, detail=f"Answers, at revision {revision}.")


@cache
def _find_newest_revision() -> str | None:
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_current_head()


def _examine_redis(here: Services) -> Check:
    if here.wakeups.is_reachable():
        return Check(ok=True, detail="Answers.")
    return Check(ok=False, detail="Redis does not answer; see DERMQ_REDIS_URL. Work is kept and done later.")


def _examine_bundle(here: Services) -> Check:
    try:
        bundle = here.find_bundle()
    except errors.Unfit as err:
        return Check(ok=False, detail=f"{err.detail} See DERMQ_BUNDLES_DIR.")
    return Check(ok=True, detail=f"{bundle.name} {bundle.version}.")


def _examine_storage(here: Services) -> Check:
    with here.sessions.reading() as session:
        waiting = archives.count_waiting(session, "storage_full")
    free_bytes = here.blobs.measure_free_bytes()
    left = "" if free_bytes is None else f" It has {free_bytes / 1e6:,.0f} MB left."
    if waiting or (free_bytes is not None and free_bytes < storage.RESERVE_BYTES):
        return Check(
            ok=False,
            detail=f"The storage of the images is full; archives that wait for space: {waiting}.{left} "
            "Make space; work then goes on by itself, and nothing is lost.",
        )
    return Check(ok=True, detail=f"Has space.{left}")


def _examine_worker(here: Services, queue: Queue) -> Check:
    settings = here.settings
    with here.sessions.reading() as session:
        alive = liveness.list_alive(session, settings, Worker.queue == queue.value)
        waited_seconds = liveness.measure_waited_seconds(session, queue)
    stalled = sum(pulse.is_stalled(waited_seconds, settings) for pulse in alive)
    if not alive:
        detail = f"No {queue} worker sent a heartbeat in the last {settings.worker_gone_seconds:g} s"
        return Check(ok=False, detail=f"{detail}; start one and see its log.")
    if stalled == len(alive):
        detail = f"Stalled: no {queue} worker made progress in {settings.stalled_seconds:g} s while work waited"
        return Check(ok=False, detail=f"{detail}. A stalled worker ends and is started again: see its log.")
    return Check(ok=True, detail=f"{len(alive)} alive, {stalled} stalled.")
