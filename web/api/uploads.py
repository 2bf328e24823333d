"""Upload images and archives into a batch; list the archives and what was refused."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

from flask import request
from sqlalchemy.orm import Session

from dermq import archives, arrivals, batches, db, errors, formats, quotas, zips
from dermq.models import Archive
from dermq.principals import Scope
from dermq.storage import Incoming
from dermq.wakeups import Queue
from web import listing, services
from web.access import auth, owned
from web.api import blueprints, documents, image_schemas, schemas
from web.api.batches import make_accepted_headers
from web.api.requests import ArchiveNames, ImageName, Paging
from web.http import bodies

Row = TypeVar("Row")
blueprint = blueprints.make("uploads", "Uploads of images and archives into a batch.")
_TOUCH_SECONDS = 3.0
"""Time between two updates of an archive that is being received. The reaper closes one without updates."""
_PROBLEMS = (400, 404, 409, 413, 415, 422, 507)
"""Statuses of uploads that are not accepted."""
_IMAGES = (*formats.list_media_types(), "application/octet-stream")


@blueprint.put("/batches/<uuid:batch_id>/images")
@blueprint.input(ImageName, location="query")
@blueprint.output(image_schemas.ReceivedImage, description="The batch has this image already; nothing was done.")
@blueprint.doc(
    responses=documents.describe_responses(
        *_PROBLEMS,
        also={202: documents.describe_accepted(image_schemas.ReceivedImage, "Queued.")},
    ),
    extensions={
        "requestBody": documents.describe_body(
            *_IMAGES, description="The image file. Its format is recognised by its content."
        )
    },
)
@auth.require(Scope.SUBMIT)
def put_image(batch_id: uuid.UUID, query_data: ImageName) -> tuple[image_schemas.ReceivedImage, int, dict[str, str]]:
    """Add one image.

    Repeat an upload that was interrupted: the same name with the same bytes changes nothing. The same name with other
    bytes is a conflict. The image is classified at once, also while the batch is open.
    """
    here = services.get_current()
    check_open(batch_id)
    with bodies.take_place(auth.get_principal().lab_id), contextlib.ExitStack() as stack:
        body = bodies.Noted(bodies.read_chunks())
        try:
            bodies.check_length(here.settings.max_image_bytes, arrivals.make_too_large(here.settings))
            taking = arrivals.receive_file(here.blobs, query_data.name, body, here.settings)
            arrival = stack.enter_context(taking)
        except errors.Rejected as err:
            db.transact(here.sessions, arrivals.refuse, batch_id, query_data.name, err, body.identity)
            raise
        arrivals.keep(here.sessions, here.blobs, batch_id, [arrival], here.settings)
        [verdict] = db.transact(here.sessions, arrivals.receive, batch_id, [arrival], here.settings)
    if verdict.error is not None:
        raise verdict.error
    received = image_schemas.ReceivedImage.of(batch_id, arrival, verdict)
    if verdict.unchanged:
        return received, 200, {}
    here.wakeups.send(Queue.CLASSIFY)
    return received, 202, make_accepted_headers(received.links.self)


@blueprint.put("/batches/<uuid:batch_id>/archive")
@blueprint.input(ArchiveNames, location="query")
@blueprint.output(schemas.Archive, description="The batch has this archive already; nothing was done.")
@blueprint.doc(
    responses=documents.describe_responses(
        *_PROBLEMS,
        also={202: documents.describe_accepted(schemas.Archive, "Stored; a worker unpacks it.")},
    ),
    extensions={"requestBody": documents.describe_body("application/zip", description="The ZIP file.")},
)
@auth.require(Scope.SUBMIT)
def put_archive(batch_id: uuid.UUID, query_data: ArchiveNames) -> tuple[schemas.Archive, int, dict[str, str]]:
    """Add a ZIP of images.

    A worker unpacks it and accepts or refuses each entry. A second archive adds to the first. An archive with the same
    bytes as an earlier one changes nothing. The batch cannot be sealed while an archive is being received.
    """
    here = services.get_current()
    check_open(batch_id)
    most = here.settings.max_archive_bytes
    too_large = errors.TooLarge(
        "archive_too_large", f"The archive has more than {most:,} bytes, the most that is accepted."
    )
    bodies.check_length(most, too_large)
    _check_room(request.content_length or 0)
    with bodies.take_place(auth.get_principal().lab_id), here.blobs.receive() as file:
        archive_id = batches.make_id()
        db.transact(here.sessions, archives.begin, batch_id, archive_id, query_data.encoding)
        with _close_on_failure(archive_id):
            _receive_archive(archive_id, file, too_large, most)
            archives.keep(here.sessions, here.blobs, archive_id, file)
            archive, is_new = db.transact(here.sessions, _store, archive_id, file)
    shown = schemas.Archive.of(archive)
    if not is_new:
        return shown, 200, {}
    here.wakeups.send(Queue.INTAKE)
    return shown, 202, make_accepted_headers(shown.links.self)


@blueprint.get("/batches/<uuid:batch_id>/archives")
@blueprint.input(Paging, location="query")
@blueprint.output(schemas.ArchivePage)
@blueprint.doc(responses=documents.describe_responses(404, 422))
@auth.require(Scope.READ)
def get_archives(batch_id: uuid.UUID, query_data: Paging) -> schemas.ArchivePage:
    """List the archives of a batch, oldest first, with the results for their entries."""
    page = _read_page(batch_id, listing.list_archives, query_data)
    return schemas.ArchivePage(archives=[schemas.Archive.of(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.get("/batches/<uuid:batch_id>/archives/<uuid:archive_id>")
@blueprint.output(schemas.Archive)
@blueprint.doc(responses=documents.describe_responses(404))
@auth.require(Scope.READ)
def get_archive(batch_id: uuid.UUID, archive_id: uuid.UUID) -> schemas.Archive:
    """Get one archive."""

    def work(session: Session) -> Archive:
        owned.find(session, batch_id)
        return listing.find_archive(session, batch_id, archive_id)

    return schemas.Archive.of(db.read(services.get_current().sessions, work))


@blueprint.get("/batches/<uuid:batch_id>/refusals")
@blueprint.input(Paging, location="query")
@blueprint.output(schemas.RefusalPage)
@blueprint.doc(responses=documents.describe_responses(404, 422))
@auth.require(Scope.READ)
def get_refusals(batch_id: uuid.UUID, query_data: Paging) -> schemas.RefusalPage:
    """List the files that the batch refused, and why."""
    page = _read_page(batch_id, listing.list_refusals, query_data)
    return schemas.RefusalPage(refusals=[schemas.Refusal.of(row) for row in page.rows], next_cursor=page.next_cursor)


def check_open(batch_id: uuid.UUID) -> None:
    """Check, before the body is read, that this lab has the batch and that it takes images.

    Raises NotFound or Conflict.
    """
    batches.check_open(owned.read(batch_id))


def _read_page(batch_id: uuid.UUID, rows: Callable[..., listing.Page[Row]], paging: Paging) -> listing.Page[Row]:
    """Return a page of rows that belong to a batch of this lab."""

    def work(session: Session) -> listing.Page[Row]:
        owned.find(session, batch_id)
        return rows(session, batch_id, limit=paging.limit, cursor=paging.cursor)

    return db.read(services.get_current().sessions, work)


def _receive_archive(archive_id: uuid.UUID, file: Incoming, too_large: errors.TooLarge, most: int) -> None:
    """Write the body to ``file`` and check that it is a complete ZIP archive, whatever stands before or behind it.

    Raises ``too_large``, UnsupportedFormat, and Conflict when the archive was closed meanwhile.
    """
    here = services.get_current()
    touched = time.monotonic()
    for chunk in bodies.read_chunks():
        if file.bytes + len(chunk) > most:
            raise too_large
        file.write(chunk)
        if time.monotonic() - touched > _TOUCH_SECONDS:
            db.transact(here.sessions, archives.touch, archive_id, file.bytes)
            touched = time.monotonic()
    file.finish()
    with file.open() as content:
        zips.check(content)


def _check_room(archive_bytes: int) -> None:
    """Raise OutOfSpace when an archive of this size would be over the quota of the lab."""
    here, lab_id = services.get_current(), auth.get_principal().lab_id
    db.read(here.sessions, quotas.check_archive, lab_id, here.settings, archive_bytes=archive_bytes)


def _store(session: Session, archive_id: uuid.UUID, file: Incoming) -> tuple[Archive, bool]:
    """Store a received archive unless it is over the quota of the lab. Raises OutOfSpace, and as ``store`` does."""
    archive, is_new = archives.store(session, archive_id, file)
    if is_new:
        settings = services.get_current().settings
        quotas.check_archive(session, auth.get_principal().lab_id, settings, archive_bytes=0)
    return archive, is_new


@contextlib.contextmanager
def _close_on_failure(archive_id: uuid.UUID) -> Iterator[None]:
    """Close the archive if the block raises, so that its batch can be sealed."""
    try:
        yield
    except errors.DermqError as err:
        _abandon(archive_id, err)
        raise
    except BaseException:
        _abandon(archive_id, errors.Transient("upload_ended", "The upload ended early; send the archive again."))
        raise


def _abandon(archive_id: uuid.UUID, error: errors.DermqError) -> None:
    # If the database cannot be reached, the reaper closes the archive later.
    with contextlib.suppress(errors.Transient):
        db.transact(services.get_current().sessions, archives.abandon, archive_id, error)
