"""Keyset pages of batches, images, refusals and archives: rows that arrive later do not shift the pages."""

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import errors
from dermq.lifecycle import ImageState
from dermq.models import Archive, Batch, Image, Prediction, Refusal

T = TypeVar("T")
Classified = tuple[Image, Prediction | None]
"""An image and its prediction by the batch's bundle, if it has one yet."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of rows, and the cursor of the next page if there is one."""

    rows: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True)
class Filter:
    """Which images of a batch to list."""

    state: ImageState | None = None
    diagnosis: str | None = None
    name: str | None = None
    """Part of the name; upper and lower case are the same."""


def list_batches(session: Session, lab_id: int, *, limit: int, cursor: str | None = None) -> Page[Batch]:
    """Return a page of a lab's batches with their bundles, newest first. Raises Rejected for a bad cursor."""
    wanted = (
        sa.select(Batch)
        .options(joinedload(Batch.bundle))
        .where(Batch.lab_id == lab_id, Batch.deleted_at.is_(None))
        .order_by(Batch.id.desc())
    )
    if cursor is not None:
        wanted = wanted.where(Batch.id < _decode(cursor, uuid.UUID))
    return _make_page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def list_images(
    session: Session, batch: Batch, wanted: Filter = Filter(), *, limit: int, cursor: str | None = None
) -> Page[Classified]:
    """Return a page of a batch's images in the order of arrival, each with its prediction."""
    query = select_classified(batch).order_by(Image.position)
    if wanted.state is not None:
        query = query.where(Image.state == wanted.state)
    if wanted.diagnosis is not None:
        query = query.where(Prediction.diagnosis == wanted.diagnosis)
    if wanted.name:
        query = query.where(Image.name.icontains(wanted.name, autoescape=True))
    if cursor is not None:
        query = query.where(Image.position > _decode(cursor, int))
    rows: Sequence[Classified] = session.execute(query.limit(limit + 1)).all()
    return _make_page(rows, limit, lambda row: row[0].position)


def find_image(session: Session, batch: Batch, position: int) -> Classified:
    """Return one image of a batch with its prediction. Raises NotFound."""
    known = 1 <= position <= batch.received
    found = session.execute(select_classified(batch).where(Image.position == position)).one_or_none() if known else None
    if found is None:
        raise errors.NotFound("no_image", f"The batch has no image {position}.")
    return found


def select_classified(batch: Batch) -> sa.Select[Image, Prediction | None]:
    """Return a query for the images of a batch, each with its prediction by the batch's bundle."""
    by_bundle = (Prediction.image_id == Image.id) & (Prediction.bundle_id == batch.bundle_id)
    return sa.select(Image, Prediction).outerjoin(Prediction, by_bundle).where(Image.batch_id == batch.id)


def list_refusals(session: Session, batch_id: uuid.UUID, *, limit: int, cursor: str | None = None) -> Page[Refusal]:
    """Return a page of a batch's refusals, oldest first."""
    wanted = sa.select(Refusal).where(Refusal.batch_id == batch_id).order_by(Refusal.id)
    if cursor is not None:
        wanted = wanted.where(Refusal.id > _decode(cursor, int))
    return _make_page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def list_archives(session: Session, batch_id: uuid.UUID, *, limit: int, cursor: str | None = None) -> Page[Archive]:
    """Return a page of a batch's archives, oldest first."""
    wanted = sa.select(Archive).where(Archive.batch_id == batch_id).order_by(Archive.id)
    if cursor is not None:
        wanted = wanted.where(Archive.id > _decode(cursor, uuid.UUID))
    return _make_page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def find_archive(session: Session, batch_id: uuid.UUID, archive_id: uuid.UUID) -> Archive:
    """Return one archive of a batch. Raises NotFound."""
    found = session.scalar(sa.select(Archive).where(Archive.id == archive_id, Archive.batch_id == batch_id))
    if found is None:
        raise errors.NotFound("no_archive", f"The batch has no archive {archive_id}.")
    return found


def _make_page(rows: Sequence[T], limit: int, key: Callable[[T], Any]) -> Page[T]:
    """Make a page of up to ``limit + 1`` rows; if the last of these is there, the page has a next one."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], _encode(key(rows[limit - 1])))


def _encode(key: Any) -> str:
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def _decode(cursor: str, kind: Callable[[str], T]) -> T:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = kind(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
        if isinstance(key, int) and not 0 <= key < 2**63:
            raise ValueError
        return key
    except (ValueError, binascii.Error) as err:
        raise errors.Rejected(
            "bad_cursor", "The cursor is not valid; take it from `next_cursor` of the page before."
        ) from err
