"""The page of a batch."""

import uuid
from typing import Any

from flask import Response, render_template, request
from pydantic import ValidationError
from sqlalchemy.orm import Session

from dermq import db, errors, models
from dermq.lifecycle import ImageState
from dermq.principals import Scope
from web import listing, services
from web.access import auth, owned
from web.api import requests, schemas
from web.pages import live, wording
from web.pages.tables import Table
from web.reports import registry

IMAGES_SHOWN = 50
REFUSALS_SHOWN = 25
ARCHIVES_SHOWN = 50


@auth.require(Scope.READ)
def show_batch(batch_id: uuid.UUID) -> Response:
    """Show a batch with its status, reports, refused files, archives and images. The page refreshes itself."""
    wanted = _read_filter()
    found = owned.read(batch_id)
    return live.respond([(found.id, found.version)], lambda: _render(found, wanted))


def _render(found: models.Batch, wanted: requests.ImageFilter) -> str:
    images = listing.Filter(wanted.state, wanted.diagnosis, wanted.name)

    def rows(session: Session) -> tuple[listing.Page[Any], listing.Page[models.Refusal], listing.Page[models.Archive]]:
        refused_after = request.args.get("refused_after")
        return (
            listing.list_images(session, found, images, limit=IMAGES_SHOWN, cursor=wanted.cursor),
            listing.list_refusals(session, found.id, limit=REFUSALS_SHOWN, cursor=refused_after),
            listing.list_archives(session, found.id, limit=ARCHIVES_SHOWN),
        )

    shown, refused, archives = db.read(services.get_current().sessions, rows)
    status = schemas.Batch.of(found)
    return render_template(
        "batch.html",
        batch=found,
        links=status.links,
        report_formats=registry.FORMATS,
        progress=wording.Progress.of(status),
        settled=live.is_settled(found),
        wanted=wanted,
        images=Table.of(shown, "cursor"),
        refusals=Table.of(refused, "refused_after"),
        archives=archives.rows,
        states=list(ImageState),
    )


def _read_filter() -> requests.ImageFilter:
    """Return the filter in the address. Raises Rejected for one that no form of our pages makes."""
    given = {name: value for name, value in request.args.items() if name in requests.ImageFilter.model_fields and value}
    try:
        return requests.ImageFilter.model_validate(given)
    except ValidationError as err:
        raise errors.Rejected("bad_filter", f"This filter cannot be used: {err.errors()[0]['msg']}.") from err
