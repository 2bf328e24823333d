"""``/metrics``: figures for Prometheus, read from SQL in one short transaction at each scrape.

Every program writes its state to SQL, so the web can report on all of them. No label holds text of a lab.
"""

import hmac
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, current_app, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermq import db, errors, lifecycle, liveness
from dermq.lifecycle import OPEN_ARCHIVE, BatchState, ImageState
from dermq.models import Archive, Batch, Claim
from dermq.queue.active import WAITING_BATCHES
from dermq.settings import Settings
from dermq.wakeups import Queue
from web import services
from web.access import keys
from web.services import Services

blueprint = Blueprint("metrics", __name__)
_TOKEN = "METRICS_TOKEN"


def register(app: Flask, settings: Settings) -> None:
    """Add ``/metrics`` to ``app``. It answers only requests with the token for metrics."""
    app.config[_TOKEN] = keys.read_metrics_token(settings.metrics_token_file or settings.var_dir / "metrics-token")
    app.register_blueprint(blueprint)


@blueprint.get("/metrics")
def show() -> Response:
    """Answer a scrape by Prometheus, with 503 when the database cannot be reached."""
    _check_token()
    registry = CollectorRegistry()
    registry.register(Figures(services.get_current()))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return Response(encode(registry), content_type=content_type)
    except SQLAlchemyError as err:
        raise errors.Unavailable("database_unavailable", "The database does not answer; try again.") from err


def _check_token() -> None:
    """Raise Unauthorized unless the request carries the token for metrics, which no lab has."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    known = current_app.config[_TOKEN]
    if scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode(), known.encode()):
        raise errors.Unauthorized(
            "bad_token", "Metrics need their own token, which is in the file that DERMQ_METRICS_TOKEN_FILE names."
        )


class Figures(Collector):
    """The figures of one scrape."""

    def __init__(self, here: Services) -> None:
        self._here = here

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering the collector reads no figures."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the figures of the database, all read in one transaction, then those of Redis and the blob store."""
        # Not db.read, which retries for seconds; the next scrape comes anyway.
        with self._here.sessions.reading() as session:
            read = [
                *_measure_batches(session),
                *_measure_queue(session),
                *_measure_workers(session, self._here.settings),
            ]
        yield from read
        yield _make_gauge("dermq_redis_up", "Whether Redis answers.", self._here.wakeups.is_reachable())
        free = self._here.blobs.measure_free_bytes()
        if free is not None:
            yield _make_gauge("dermq_blobs_free_bytes", "Free bytes where the images are kept.", free)


def _measure_batches(session: Session) -> Iterator[GaugeMetricFamily]:
    has_run = Batch.running + Batch.done + Batch.failed > 0
    facts = (Batch.cancelled_at, Batch.sealed_at, Batch.finished_at)
    grouped = session.execute(
        sa.select(
            *(sa.func.min(fact).label(fact.key) for fact in facts),
            has_run.label("has_run"),
            sa.func.count().label("batches"),
            *(sa.func.sum(getattr(Batch, state)).label(state) for state in ImageState),
            sa.func.sum(Batch.refused).label("refused"),
            sa.func.count(Batch.breached_at).label("breached"),
        )
        .where(Batch.deleted_at.is_(None))
        .group_by(*(fact.is_(None) for fact in facts), has_run)
    )
    batches: Counter[str] = Counter()
    images: Counter[str] = Counter()
    refused = breached = 0
    for row in grouped.mappings():
        past = {fact.key: row[fact.key] for fact in facts}
        batches[lifecycle.find_batch_state(**past, has_run=row["has_run"])] += row["batches"]
        images.update({state: row[state] for state in ImageState})
        refused += row["refused"]
        breached += row["breached"]
    yield _make_gauge_by(
        "dermq_images", "Images that were received, by state.", "state", {s: images[s] for s in ImageState}
    )
    yield _make_gauge_by(
        "dermq_batches", "Batches that were not deleted, by state.", "state", {s: batches[s] for s in BatchState}
    )
    yield _make_gauge("dermq_refused_files", "Files that were refused.", refused)
    yield _make_gauge("dermq_breached_batches", "Batches in which the conservation check found a breach.", breached)


def _measure_queue(session: Session) -> Iterator[GaugeMetricFamily]:
    labs = sa.select(sa.func.count(Batch.lab_id.distinct())).where(*WAITING_BATCHES)
    archives = sa.select(sa.func.count()).select_from(Archive).where(Archive.state.in_(OPEN_ARCHIVE))
    expired = sa.select(sa.func.count()).select_from(Claim).where(Claim.expires_at < db.now())
    yield _make_gauge("dermq_waiting_labs", "Labs whose images wait.", session.scalar(labs))
    yield _make_gauge(
        "dermq_open_archives",
        "Archives that are being received, wait, or are being unpacked.",
        session.scalar(archives),
    )
    yield _make_gauge(
        "dermq_expired_claims",
        "Leases that ran out and that the reaper has not taken back yet.",
        session.scalar(expired),
    )


def _measure_workers(session: Session, settings: Settings) -> Iterator[GaugeMetricFamily]:
    waited = {queue: liveness.measure_waited_seconds(session, queue) for queue in Queue}
    pulses = liveness.list_alive(session, settings)
    alive = Counter(pulse.queue for pulse in pulses)
    stalled = Counter(pulse.queue for pulse in pulses if pulse.is_stalled(waited[pulse.queue], settings))
    quiet: dict[Queue, float] = {}
    for pulse in pulses:
        quiet[pulse.queue] = min(pulse.progressed_seconds, quiet.get(pulse.queue, pulse.progressed_seconds))
    yield _make_gauge_by(
        "dermq_oldest_waiting_seconds",
        "For how long, at least, the oldest work has waited; 0 when none waits.",
        "queue",
        {queue: seconds or 0 for queue, seconds in waited.items()},
    )
    yield _make_gauge_by(
        "dermq_workers_alive", "Workers that sent a heartbeat recently.", "queue", {q: alive[q] for q in Queue}
    )
    yield _make_gauge_by(
        "dermq_workers_stalled",
        "Workers that make no progress while work waits.",
        "queue",
        {q: stalled[q] for q in Queue},
    )
    yield _make_gauge_by(
        "dermq_progress_age_seconds", "Seconds since any living worker last made progress.", "queue", quiet
    )


def _make_gauge(name: str, meaning: str, value: Any) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


def _make_gauge_by(name: str, meaning: str, label: str, values: dict[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family
