"""Pages that refresh themselves: ``static/js/live.js`` requests the page with its ETag and replaces what changed."""

import uuid
from collections.abc import Callable
from hashlib import sha256

from flask import Response, make_response, request

from dermq.lifecycle import BatchState
from dermq.models import Batch


def respond(versions: list[tuple[uuid.UUID, int]], render: Callable[[], str]) -> Response:
    """Answer with a page, or with 304 if nothing that it shows has changed.

    ``versions`` are the ids and versions of the batches on the page. The browser may not store the page, so that nobody
    sees it after signing out.
    """
    etag = sha256(repr((versions, request.full_path)).encode()).hexdigest()[:32]
    unchanged = request.if_none_match.contains(etag)
    response = make_response(("", 304) if unchanged else render())
    response.set_etag(etag)
    return response


def is_settled(batch: Batch) -> bool:
    """Return whether the batch no longer changes unless somebody acts on it."""
    waiting = batch.queued + batch.running + batch.archives_open
    return batch.state in (BatchState.FINISHED, BatchState.CANCELLED) and not waiting
