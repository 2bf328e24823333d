"""The first page, with an area to drop images on and the lab's batches."""

from flask import Response, render_template, request, url_for

from dermq import db
from dermq.principals import Scope
from web import listing, services
from web.access import auth
from web.pages import live
from web.pages.tables import Table

BATCHES_SHOWN = 25


@auth.require(Scope.READ)
def show_home() -> Response:
    """Show an area to drop images on, and the lab's batches, newest first."""
    lab_id, cursor = auth.get_principal().lab_id, request.args.get("cursor")
    page = db.read(services.get_current().sessions, listing.list_batches, lab_id, limit=BATCHES_SHOWN, cursor=cursor)
    return live.respond(
        [(batch.id, batch.version) for batch in page.rows],
        lambda: render_template(
            "home.html",
            batches_address=url_for("batches.get_batches"),
            table=Table.of(page, "cursor"),
            settled=all(live.is_settled(batch) for batch in page.rows),
        ),
    )
