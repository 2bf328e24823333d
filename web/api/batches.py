"""Batches: list, poll, seal, cancel, retry, delete. ``web.api.creation`` creates them."""

import uuid
from functools import partial
from typing import Any

from flask import Response, jsonify, request, url_for
from sqlalchemy.orm import Session

from dermq import batches, db, deletion, quotas
from dermq.principals import Scope
from dermq.wakeups import Queue
from web import listing, services
from web.access import auth, owned
from web.api import blueprints, documents, schemas
from web.api.requests import Paging

blueprint = blueprints.make("batches", "Images submitted together: the job that a lab polls.")
RETRY_SECONDS = 1
"""Value of Retry-After when work was accepted; an idle system classifies an image in this time."""


@blueprint.get("/batches")
@blueprint.input(Paging, location="query")
@blueprint.output(schemas.BatchPage)
@blueprint.doc(responses=documents.describe_responses(422))
@auth.require(Scope.READ)
def get_batches(query_data: Paging) -> schemas.BatchPage:
    """List your batches, newest first."""
    sessions, lab_id = services.get_current().sessions, auth.get_principal().lab_id
    page = db.read(sessions, listing.list_batches, lab_id, limit=query_data.limit, cursor=query_data.cursor)
    return schemas.BatchPage(batches=[schemas.Batch.of(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.get("/batches/<uuid:batch_id>")
@blueprint.output(
    schemas.Batch,
    headers={"ETag": {"description": "Changes with the status.", "schema": {"type": "string"}}},
)
@blueprint.doc(
    responses=documents.describe_responses(404, also={304: {"description": "Nothing has changed since If-None-Match."}})
)
@auth.require(Scope.READ)
def get_batch(batch_id: uuid.UUID) -> Response:
    """Poll the status of a batch.

    Send the ETag of the last answer as If-None-Match. The answer is 304 when nothing has changed.
    """
    row = owned.read(batch_id)
    response = jsonify(schemas.Batch.of(row).model_dump(mode="json"))
    response.set_etag(f"{row.id}-{row.version}")
    response.make_conditional(request)
    return response


@blueprint.post("/batches/<uuid:batch_id>/seal")
@blueprint.output(schemas.Batch)
@blueprint.doc(responses=documents.describe_responses(404, 409))
@auth.require(Scope.SUBMIT)
def seal_batch(batch_id: uuid.UUID) -> schemas.Batch:
    """Finish the upload of a batch, which takes no more files from then on. Send no body. Safe to repeat."""
    _act(batch_id, partial(batches.seal, by=auth.get_principal()))
    return _read_status(batch_id)


@blueprint.post("/batches/<uuid:batch_id>/cancel")
@blueprint.output(schemas.Batch)
@blueprint.doc(responses=documents.describe_responses(404, 409))
@auth.require(Scope.MANAGE)
def cancel_batch(batch_id: uuid.UUID) -> schemas.Batch:
    """Cancel all images of a batch that wait. Send no body. Safe to repeat.

    Images that are being classified are still finished.
    """
    _act(batch_id, partial(batches.cancel, by=auth.get_principal()))
    _act(batch_id, batches.sweep)
    return _read_status(batch_id)


@blueprint.post("/batches/<uuid:batch_id>/retry")
@blueprint.output(schemas.Batch, status_code=202)
@blueprint.doc(responses=documents.describe_responses(404, 409))
@auth.require(Scope.MANAGE)
def retry_batch(batch_id: uuid.UUID) -> tuple[schemas.Batch, int, dict[str, str]]:
    """Queue the failed images of a batch again, unless your lab has used up its quota of waiting ones. Send no body."""
    _act(batch_id, _retry)
    services.get_current().wakeups.send(Queue.CLASSIFY)
    return _read_status(batch_id), 202, make_accepted_headers(url_for("batches.get_batch", batch_id=batch_id))


@blueprint.delete("/batches/<uuid:batch_id>")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses=documents.describe_responses(404))
@auth.require(Scope.MANAGE)
def delete_batch(batch_id: uuid.UUID) -> str:
    """Delete a batch for good, with its images, files and results."""
    _act(batch_id, partial(batches.mark_deleted, by=auth.get_principal()))
    here = services.get_current()
    deletion.purge(here.sessions, here.blobs, batch_id)
    return ""


def make_accepted_headers(location: str) -> dict[str, str]:
    """Return the headers of an answer to work that was accepted."""
    return {"Location": location, "Retry-After": str(RETRY_SECONDS)}


def _retry(session: Session, batch_id: uuid.UUID) -> None:
    by = auth.get_principal()
    # Room for one image suffices: a batch may have more failed ones than a small quota, and must not be stuck.
    quotas.check_waiting(session, by.lab_id, services.get_current().settings, images=1)
    batches.retry(session, batch_id, by=by)


def _act(batch_id: uuid.UUID, act: Any) -> None:
    """Run ``act(session, batch_id)`` in one transaction, after a check that the batch belongs to this lab."""

    def work(session: Session) -> None:
        owned.find(session, batch_id)
        act(session, batch_id)

    db.transact(services.get_current().sessions, work)


def _read_status(batch_id: uuid.UUID) -> schemas.Batch:
    return schemas.Batch.of(owned.read(batch_id))
