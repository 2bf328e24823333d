"""The pages. They show what the API tells and act by calling it, so that none does what the API cannot.

A page that moves asks for itself with the ETag it has; the parts that changed are put in place by ``static/js``.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as Redirect

import dermq
from dermq import batches, db, errors, imaging, models, taxonomy
from dermq.lifecycle import BatchState, ImageState
from dermq.settings import Settings
from web import listing, services
from web.access import auth
from web.api import requests, schemas
from web.pages import guide, wording

BATCHES_SHOWN = 25
IMAGES_SHOWN = 50
REFUSALS_SHOWN = 25
ARCHIVES_SHOWN = 50

blueprint = Blueprint("pages", __name__)
wording.register(blueprint)


@dataclass(frozen=True)
class Limits:
    """What a drop zone says that it takes."""

    images: int
    image_bytes: int
    archive_bytes: int
    formats: str = imaging.FORMATS_TEXT

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(settings.max_images_per_batch, settings.max_image_bytes, settings.max_archive_bytes)


@dataclass(frozen=True)
class Table:
    """Some rows of a list on a page, and the addresses of its first and its next page."""

    rows: Any
    first_address: str | None
    next_address: str | None


@blueprint.app_context_processor
def _everywhere() -> dict[str, Any]:
    return {
        "lab": _visitor(),
        "notice": taxonomy.NOTICE,
        "version": dermq.__version__,
        "diagnoses": taxonomy.DIAGNOSES,
        "limits": Limits.of(services.current().settings),
    }


@blueprint.errorhandler(errors.Unauthorized)
def _ask_to_sign_in(error: errors.Unauthorized) -> Redirect:
    return redirect(url_for("pages.sign_in", next=request.full_path.rstrip("?")))


@blueprint.get("/sign-in")
def sign_in() -> Any:
    """Ask for an access token, or sign in at once with the one-time code of a link."""
    code = request.args.get("code")
    if code is None:
        return _sign_in_form()
    try:
        auth.sign_in_with_code(code)
    except errors.Unauthorized as error:
        # A browser may fetch a link before its reader opens it, which uses the code up.
        if not auth.is_signed_in():
            return _sign_in_form(error.detail)
    return redirect(url_for("pages.home"))


@blueprint.post("/sign-in")
def sign_in_with_token() -> Any:
    """Sign in with an access token."""
    try:
        auth.sign_in(request.form.get("token", ""))
    except errors.Unauthorized as error:
        return _sign_in_form(error.detail)
    return redirect(_own_address(request.form.get("next")))


@blueprint.post("/sign-out")
def sign_out() -> Redirect:
    """End this browser's session."""
    auth.sign_out()
    return redirect(url_for("pages.sign_in"))


@blueprint.get("/")
def home() -> Response:
    """A place to drop images, and the lab's batches, newest first."""
    lab, cursor = auth.current_lab(), request.args.get("cursor")
    page = db.read(services.current().sessions, listing.batches, lab.id, limit=BATCHES_SHOWN, cursor=cursor)
    return _live(
        [(batch.id, batch.version) for batch in page.rows],
        lambda: render_template(
            "home.html",
            batches_address=url_for("batches.get_batches"),
            table=_table(page, "cursor"),
            settled=all(_is_settled(batch) for batch in page.rows),
        ),
    )


@blueprint.get("/batches/<uuid:batch_id>")
def batch(batch_id: UUID) -> Response:
    """A batch as it moves: its status, its reports, what it refused, its archives and its images."""
    lab, wanted = auth.current_lab(), _filter()
    found = db.read(services.current().sessions, batches.find, lab.id, batch_id)
    return _live([(found.id, found.version)], lambda: _batch_page(found, wanted))


@blueprint.get("/classes")
def classes() -> str:
    """The seven classes by their full names."""
    return render_template("classes.html")


@blueprint.get("/bundle")
def bundle() -> str:
    """The card of the bundle that new batches use."""
    current = services.current().bundle()
    splits = sorted(current.card.metrics.items(), key=lambda split: split[0] != "test")
    return render_template("bundle.html", card=current.card, sha256=current.sha256, splits=splits)


@blueprint.get("/guide")
def api() -> str:
    """How to use the API, with commands that work on this host."""
    return render_template("api.html", examples=guide.examples(request.host_url.rstrip("/")))


def _visitor() -> models.Lab | None:
    """The lab that is signed in; the page of an error must come even where nobody can find that out."""
    with contextlib.suppress(errors.DermqError, SQLAlchemyError):
        return auth.current_lab()
    return None


def _batch_page(found: models.Batch, wanted: requests.ImageFilter) -> str:
    images = listing.Filter(wanted.state, wanted.diagnosis, wanted.name)

    def rows(session: Session) -> tuple[listing.Page[Any], listing.Page[models.Refusal], listing.Page[models.Archive]]:
        refused_after = request.args.get("refused_after")
        return (
            listing.images(session, found, images, limit=IMAGES_SHOWN, cursor=wanted.cursor),
            listing.refusals(session, found.id, limit=REFUSALS_SHOWN, cursor=refused_after),
            listing.archives(session, found.id, limit=ARCHIVES_SHOWN),
        )

    shown, refused, archives = db.read(services.current().sessions, rows)
    status = schemas.Batch.of(found)
    return render_template(
        "batch.html",
        batch=found,
        links=status.links,
        progress=wording.Progress.of(status),
        settled=_is_settled(found),
        wanted=wanted,
        images=_table(shown, "cursor"),
        refusals=_table(refused, "refused_after"),
        archives=archives.rows,
        states=list(ImageState),
    )


def _filter() -> requests.ImageFilter:
    """The filter in the address; what no form of ours makes is refused."""
    given = {name: value for name, value in request.args.items() if name in requests.ImageFilter.model_fields and value}
    try:
        return requests.ImageFilter.model_validate(given)
    except ValidationError as err:
        raise errors.Rejected("bad_filter", f"No image can be like that: {err.errors()[0]['msg']}.") from err


def _is_settled(found: models.Batch) -> bool:
    """Whether nothing of the batch will move by itself any more."""
    waiting = found.queued + found.running + found.archives_open
    return found.state in (BatchState.FINISHED, BatchState.CANCELLED) and not waiting


def _live(versions: list[tuple[UUID, int]], render: Callable[[], str]) -> Response:
    """A page that polls itself: 304 while nothing that it shows has changed.

    Nothing is stored by the browser, so that a signed-out one shows nothing.
    """
    etag = sha256(repr((versions, request.full_path)).encode()).hexdigest()[:32]
    unchanged = request.if_none_match.contains(etag)
    response = make_response(("", 304) if unchanged else render())
    response.set_etag(etag)
    response.headers["Cache-Control"] = "no-store"
    return response


def _table(page: listing.Page[Any], parameter: str) -> Table:
    """A listed page with its addresses: this address, but for the cursor in ``parameter``."""
    here = request.args.to_dict()
    before = here.pop(parameter, None)
    following = page.next_cursor and _here({**here, parameter: page.next_cursor})
    return Table(page.rows, _here(here) if before else None, following)


def _here(arguments: dict[str, str]) -> str:
    return url_for(str(request.endpoint), **{**(request.view_args or {}), **arguments})


def _sign_in_form(problem: str | None = None) -> tuple[str, int]:
    wanted = request.values.get("next", "")
    return render_template("sign_in.html", problem=problem, next=wanted), 401 if problem else 200


def _own_address(wanted: str | None) -> str:
    """Where to go after signing in: an address of ours, never of another site."""
    # Browsers drop tabs and line breaks, and take a backslash for a slash.
    plain = wanted is not None and wanted.isprintable() and not set(wanted) & set(" \\")
    if wanted is not None and plain and wanted.startswith("/") and not wanted.startswith("//"):
        return wanted
    return url_for("pages.home")
