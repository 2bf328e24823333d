"""Create a batch: empty, or with files in the same request."""

import contextlib
import uuid
from dataclasses import replace
from typing import Any

import pydantic
from flask import request, url_for
from sqlalchemy.orm import Session

from dermq import arrivals, batches, db, errors, quotas
from dermq.batches import Draft
from dermq.models import Batch
from dermq.principals import Scope
from dermq.wakeups import Queue
from web import listing, services
from web.access import auth, owned
from web.api import blueprints, documents, forms, schemas
from web.api.batches import make_accepted_headers
from web.api.requests import NewBatch, read_idempotency_key
from web.errors import Invalid
from web.http import bodies

blueprint = blueprints.make("creation", "Creating a batch.")
_FORM_SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "urgent": {"type": "boolean"},
        "options": {"type": "string", "contentMediaType": "application/json"},
        "metadata": {"type": "string", "contentMediaType": "application/json"},
        "seal": {"type": "boolean", "description": "Whether to finish the upload: the batch then takes no more files."},
        "files": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
    },
}
_KEY_PARAMETER = {
    "in": "header",
    "name": "Idempotency-Key",
    "description": "Send the same key when you repeat a request; no second batch is created.",
    "schema": {"type": "string", "maxLength": 255},
}


@blueprint.post("/batches")
@blueprint.output(
    schemas.CreatedBatch,
    status_code=201,
    description="The batch, empty.",
    headers={"Location": {"description": "The batch's status.", "schema": {"type": "string"}}},
)
@blueprint.doc(
    responses=documents.describe_responses(
        400,
        413,
        415,
        422,
        507,
        also={202: documents.describe_accepted(schemas.CreatedBatch, "The batch, with its files.")},
    ),
    extensions={
        "parameters": [_KEY_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": NewBatch.model_json_schema()},
                "multipart/form-data": {"schema": _FORM_SCHEMA},
            },
        },
    },
)
@auth.require(Scope.SUBMIT)
def create_batch() -> tuple[schemas.CreatedBatch, int, dict[str, str]]:
    """Create a batch, empty or with files.

    A JSON request creates an empty batch. A multipart/form-data request creates a batch with all files of the request,
    whatever their fields are called. Files that are not accepted are listed in `refusals`; the others are kept. The
    batch stays open for more files unless `seal` is true. With an Idempotency-Key, a repeated request returns the batch
    that the first one created.
    """
    if request.mimetype == "multipart/form-data":
        return _create_with_files(read_idempotency_key())
    if not request.is_json:
        raise errors.UnsupportedFormat(
            "unsupported_body", "The Content-Type is not accepted; application/json and multipart/form-data are."
        )
    return _create_empty(read_idempotency_key())


def _create_empty(key: str | None) -> tuple[schemas.CreatedBatch, int, dict[str, str]]:
    try:
        said = NewBatch.model_validate_json(request.get_data(), strict=True)
    except pydantic.ValidationError as err:
        raise Invalid.of(err, "body") from err
    return _answer_created(
        _create(_make_draft(said, key, forms.compute_fingerprint(said.model_dump())), forms.Form(), seal=False)
    )


def _create_with_files(key: str | None) -> tuple[schemas.CreatedBatch, int, dict[str, str]]:
    with bodies.take_place(auth.get_principal().lab_id), contextlib.ExitStack() as stack:
        form = forms.receive(stack)
        said = form.batch()
        batch_id = _create(_make_draft(said, key, form.fingerprint()), form, seal=said.seal)
        if not form.files:
            return _answer_created(batch_id)
    services.get_current().wakeups.send(Queue.CLASSIFY)
    shown, _, headers = _answer_created(batch_id)
    return shown, 202, {**headers, **make_accepted_headers(headers["Location"])}


def _make_draft(said: NewBatch, key: str | None, fingerprint: str) -> Draft:
    draft = Draft(name=said.name, urgent=said.urgent, options=said.options, metadata=said.metadata)
    return draft if key is None else replace(draft, idempotency_key=key, fingerprint=fingerprint)


def _create(draft: Draft, form: forms.Form, *, seal: bool) -> uuid.UUID:
    """Create the batch with its files in one transaction; return its id, or the id of the one created before.

    The files are kept before the transaction, and deleted again when this batch is not created.
    """
    here, by = services.get_current(), auth.get_principal()
    bundle = here.find_bundle()

    def work(session: Session) -> uuid.UUID:
        batch, is_new = batches.create(session, by.lab_id, draft, bundle, by=by)
        if is_new and form.files:
            arrivals.receive(session, batch.id, form.arrivals, here.settings, refused=form.refused)
        if is_new and seal:
            batches.seal(session, batch.id, by=by)
        elif is_new:
            quotas.check_open_batches(session, by.lab_id, here.settings)
        return batch.id

    try:
        arrivals.keep(here.sessions, here.blobs, draft.id, form.arrivals, here.settings)
        batch_id = db.transact(here.sessions, work)
    except (errors.Rejected, errors.Conflict, errors.OutOfSpace):
        here.blobs.delete_batch(draft.id)
        raise
    if batch_id != draft.id:
        here.blobs.delete_batch(draft.id)
    return batch_id


def _answer_created(batch_id: uuid.UUID) -> tuple[schemas.CreatedBatch, int, dict[str, str]]:
    here = services.get_current()

    def work(session: Session) -> tuple[Batch, Any]:
        row = owned.find(session, batch_id)
        return row, listing.list_refusals(session, batch_id, limit=here.settings.max_files_per_request).rows

    row, refusals = db.read(here.sessions, work)
    shown = schemas.CreatedBatch.with_refusals(row, refusals)
    return shown, 201, {"Location": url_for("batches.get_batch", batch_id=batch_id)}
