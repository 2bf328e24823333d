"""Pages that move: each asks for itself with the ETag it has, and ``static/js`` puts the changed pieces in place."""

import uuid
from collections.abc import Callable
from hashlib import sha256

from flask import Response, make_response, request

from dermq.lifecycle import BatchState
from dermq.models import Batch


def respond(versions: list[tuple[uuid.UUID, int]], render: Callable[[], str]) -> Response:
    """Answer with a page, or with 304 while nothing that it shows has changed.

    ``versions`` are the ids and versions of what this address shows. The browser stores nothing, so that a signed-out
    one shows nothing.
    """
    etag = sha256(repr((versions, request.full_path)).encode()).hexdigest()[:32]
    unchanged = request.if_none_match.contains(etag)
    response = make_response(("", 304) if unchanged else render())
    response.set_etag(etag)
    response.headers["Cache-Control"] = "no-store"
    return response


def is_settled(batch: Batch) -> bool:
    """Return whether nothing of the batch will move by itself any more."""
    waiting = batch.queued + batch.running + batch.archives_open
    return batch.state in (BatchState.FINISHED, BatchState.CANCELLED) and not waiting
