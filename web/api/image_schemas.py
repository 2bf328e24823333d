"""The schemas of images in answers of the API, and how they are made from rows."""

import uuid
from datetime import datetime

from flask import url_for
from pydantic import ConfigDict, Field

from dermq import models, taxonomy
from dermq.arrivals import Arrival, Verdict
from dermq.lifecycle import ImageState
from web import listing
from web.api import examples
from web.api.requests import DiagnosisCode
from web.api.schemas import Failure, Shape, make_batch_url, make_failure


class Prediction(Shape):
    """The result of classifying an image. For research only."""

    diagnosis: DiagnosisCode
    probabilities: dict[str, float] = Field(
        description="The probability of each of the seven diagnoses, by code. They add up to 1."
    )
    confidence: float = Field(description="The greatest of the seven probabilities.")
    entropy: float = Field(description="Entropy in nats: 0 when one probability is 1, 1.946 (ln 7) when all are equal.")
    ood_score: float = Field(
        description="Out-of-distribution score: the greater, the less the image looks like the training data."
    )
    out_of_distribution: bool = Field(description="Whether the score is above the bundle's threshold.")
    engine: str
    predicted_at: datetime

    @classmethod
    def of(cls, row: models.Prediction) -> "Prediction":
        own = ("diagnosis", "confidence", "entropy", "ood_score", "out_of_distribution", "engine", "predicted_at")
        probabilities = {code: getattr(row, f"p_{code}") for code in taxonomy.CODES}
        return cls(probabilities=probabilities, **{name: getattr(row, name) for name in own})


class Note(Shape):
    """What a lab should know of a file that was read all the same."""

    code: str
    detail: str


class ImageLinks(Shape):
    """Links to what belongs to an image."""

    self: str
    thumbnail: str = Field(description="A small JPEG; 404 until a worker has decoded the image.")
    batch: str


class Image(Shape):
    """One submitted file, its state, and its prediction or error."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMAGE]})

    position: int = Field(description="Order of arrival in the batch, from 1.")
    name: str
    state: ImageState
    sha256: str
    bytes: int
    width: int | None = Field(description="In pixels, as the file stores it. Null until the image is decoded.")
    height: int | None
    prediction: Prediction | None
    error: Failure | None
    notes: list[Note] = Field(description="What is odd about the file, which was read all the same.")
    links: ImageLinks

    @classmethod
    def of(cls, row: models.Image, prediction: models.Prediction | None = None) -> "Image":
        own = ("position", "name", "state", "sha256", "bytes", "width", "height")
        return cls(
            **{name: getattr(row, name) for name in own},
            prediction=None if prediction is None else Prediction.of(prediction),
            error=make_failure(row.error_code, row.error_detail),
            notes=[Note(**note) for note in row.notes or ()],
            links=_make_links(row.batch_id, row.position),
        )


class ReceivedImage(Shape):
    """An image that was added to a batch, or that the batch had already."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RECEIVED_IMAGE]})

    position: int
    name: str = Field(description="In Unicode's composed form, with forward slashes.")
    sha256: str
    bytes: int
    unchanged: bool = Field(description="Whether the batch had it already.")
    links: ImageLinks

    @classmethod
    def of(cls, batch_id: uuid.UUID, arrival: Arrival, verdict: Verdict) -> "ReceivedImage":
        return cls(
            position=verdict.position,
            name=verdict.name,
            sha256=arrival.file.sha256,
            bytes=arrival.file.bytes,
            unchanged=verdict.unchanged,
            links=_make_links(batch_id, verdict.position),
        )


class ImagePage(Shape):
    """Some images of a batch, in the order of their arrival."""

    images: list[Image]
    next_cursor: str | None

    @classmethod
    def of(cls, page: listing.Page[listing.Classified]) -> "ImagePage":
        return cls(images=[Image.of(*row) for row in page.rows], next_cursor=page.next_cursor)


def _make_links(batch_id: uuid.UUID, position: int | None) -> ImageLinks:
    return ImageLinks(
        self=url_for("images.get_image", batch_id=batch_id, position=position),
        thumbnail=url_for("images.get_thumbnail", batch_id=batch_id, position=position),
        batch=make_batch_url(batch_id),
    )
