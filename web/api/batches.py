"""Batches: list, poll, seal, cancel, retry, delete. ``web.api.creation`` creates them."""

import uuid
from functools import partial
from typing import Any

from flask import Response, jsonify, request, url_for
from sqlalchemy.orm import Session

from dermq import batches, db
from dermq.wakeups import Queue
from web import deletion, listing, services
from web.access import auth
from web.api import documents, schemas
from web.api.blueprint import blueprint
from web.api.requests import Paging

part = blueprint("batches", "Images submitted together: the job that a lab polls.")
RETRY_SECONDS = 1
"""Told in Retry-After wherever work was accepted: an idle system is through with an image within it."""


@part.get("/batches")
@part.input(Paging, location="query")
@part.output(schemas.BatchPage)
@part.doc(responses=documents.responses(422))
def get_batches(query_data: Paging) -> schemas.BatchPage:
    """List your batches, newest first."""
    sessions, lab = services.current().sessions, auth.current_lab()
    page = db.read(sessions, listing.batches, lab.id, limit=query_data.limit, cursor=query_data.cursor)
    return schemas.BatchPage(batches=[schemas.Batch.of(row) for row in page.rows], next_cursor=page.next_cursor)


@part.get("/batches/<uuid:batch_id>")
@part.output(
    schemas.Batch,
    headers={"ETag": {"description": "Changes with the status.", "schema": {"type": "string"}}},
)
@part.doc(responses=documents.responses(404, also={304: {"description": "Nothing has changed since If-None-Match."}}))
def get_batch(batch_id: uuid.UUID) -> Response:
    """Poll the status of a batch.

    Send the ETag of the last answer as If-None-Match; 304 says that nothing has changed.
    """
    lab = auth.current_lab()
    row = db.read(services.current().sessions, batches.find, lab.id, batch_id)
    response = jsonify(schemas.Batch.of(row).model_dump(mode="json"))
    response.set_etag(f"{row.id}-{row.version}")
    response.make_conditional(request)
    return response


@part.post("/batches/<uuid:batch_id>/seal")
@part.output(schemas.Batch)
@part.doc(responses=documents.responses(404, 409))
def seal_batch(batch_id: uuid.UUID) -> schemas.Batch:
    """Say that the batch is whole. No body; safe to do twice."""
    _act(batch_id, partial(batches.seal, by=auth.principal()))
    return _status(batch_id)


@part.post("/batches/<uuid:batch_id>/cancel")
@part.output(schemas.Batch)
@part.doc(responses=documents.responses(404, 409))
def cancel_batch(batch_id: uuid.UUID) -> schemas.Batch:
    """Stop what has not run. No body; safe to do twice.

    What runs is still recorded.
    """
    _act(batch_id, partial(batches.cancel, by=auth.principal()))
    _act(batch_id, batches.sweep)
    return _status(batch_id)


@part.post("/batches/<uuid:batch_id>/retry")
@part.output(schemas.Batch, status_code=202)
@part.doc(responses=documents.responses(404, 409))
def retry_batch(batch_id: uuid.UUID) -> tuple[schemas.Batch, int, dict[str, str]]:
    """Queue the failed images again. No body."""
    _act(batch_id, partial(batches.retry, by=auth.principal()))
    services.current().wakeups.send(Queue.CLASSIFY)
    return _status(batch_id), 202, accepted_headers(url_for("batches.get_batch", batch_id=batch_id))


@part.delete("/batches/<uuid:batch_id>")
@part.output({}, status_code=204)
@part.doc(responses=documents.responses(404))
def delete_batch(batch_id: uuid.UUID) -> str:
    """Delete a batch for good: its rows and its files."""
    deletion.delete(services.current(), auth.principal(), auth.current_lab().id, batch_id)
    return ""


def accepted_headers(location: str) -> dict[str, str]:
    """The headers of an answer to work that was accepted."""
    return {"Location": location, "Retry-After": str(RETRY_SECONDS)}


def _act(batch_id: uuid.UUID, act: Any) -> None:
    """Do something to a batch of this lab in one transaction."""
    lab = auth.current_lab()

    def work(session: Session) -> None:
        batches.find(session, lab.id, batch_id)
        act(session, batch_id)

    db.transact(services.current().sessions, work)


def _status(batch_id: uuid.UUID) -> schemas.Batch:
    lab = auth.current_lab()
    row = db.read(services.current().sessions, batches.find, lab.id, batch_id)
    return schemas.Batch.of(row)
