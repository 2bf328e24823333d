"""The images of a batch: their states, predictions and errors, and their thumbnails."""

import uuid

from flask import Response, request, send_file
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.principals import Scope
from dermq.storage import THUMBNAIL
from web import listing, services
from web.access import auth, owned
from web.api import blueprints, documents, image_schemas
from web.api.requests import ImageFilter

blueprint = blueprints.make("images", "Each image with its prediction or its error.")


@blueprint.get("/batches/<uuid:batch_id>/images")
@blueprint.input(ImageFilter, location="query")
@blueprint.output(image_schemas.ImagePage)
@blueprint.doc(responses=documents.describe_responses(404, 422))
@auth.require(Scope.READ)
def get_images(batch_id: uuid.UUID, query_data: ImageFilter) -> image_schemas.ImagePage:
    """List the images of a batch in the order of their arrival, filtered by state, diagnosis and part of the name."""
    wanted = listing.Filter(query_data.state, query_data.diagnosis, query_data.name)

    def work(session: Session) -> listing.Page[listing.Classified]:
        batch = owned.find(session, batch_id)
        return listing.list_images(session, batch, wanted, limit=query_data.limit, cursor=query_data.cursor)

    return image_schemas.ImagePage.of(db.read(services.get_current().sessions, work))


@blueprint.get("/batches/<uuid:batch_id>/images/<int:position>")
@blueprint.output(image_schemas.Image)
@blueprint.doc(responses=documents.describe_responses(404))
@auth.require(Scope.READ)
def get_image(batch_id: uuid.UUID, position: int) -> image_schemas.Image:
    """Get one image with its prediction or its error."""
    return image_schemas.Image.of(*_find(batch_id, position))


@blueprint.get("/batches/<uuid:batch_id>/images/<int:position>/thumbnail")
@blueprint.doc(
    responses=documents.describe_responses(
        404,
        also={
            200: documents.describe_content(
                "image/jpeg", {"type": "string", "contentMediaType": "image/jpeg"}, "A small JPEG."
            ),
            304: {"description": "Nothing has changed since If-None-Match."},
        },
    )
)
@auth.require(Scope.READ)
def get_thumbnail(batch_id: uuid.UUID, position: int) -> Response:
    """Get a small picture of an image, without any metadata."""
    row, _ = _find(batch_id, position)
    try:
        picture = services.get_current().blobs.open(batch_id, row.sha256 + THUMBNAIL)
    except FileNotFoundError as err:
        raise errors.NotFound("no_thumbnail", "There is no thumbnail: no worker has decoded the image yet.") from err
    response = send_file(picture, mimetype="image/jpeg", etag=row.sha256)
    response.make_conditional(request)
    return response


def _find(batch_id: uuid.UUID, position: int) -> listing.Classified:

    def work(session: Session) -> listing.Classified:
        return listing.find_image(session, owned.find(session, batch_id), position)

    return db.read(services.get_current().sessions, work)
