"""Pages of batches, images, refusals and archives by keyset: what was listed stays put while more arrives."""

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
    """Some rows in order, and the cursor of the next page if there is one."""

    rows: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True)
class Filter:
    """Which images of a batch to list."""

    state: ImageState | None = None
    diagnosis: str | None = None
    name: str | None = None
    """Part of the name, in any case."""


def batches(session: Session, lab_id: int, *, limit: int, cursor: str | None = None) -> Page[Batch]:
    """A lab's batches with their bundles, newest first."""
    wanted = (
        sa.select(Batch)
        .options(joinedload(Batch.bundle))
        .where(Batch.lab_id == lab_id, Batch.deleted_at.is_(None))
        .order_by(Batch.id.desc())
    )
    if cursor is not None:
        wanted = wanted.where(Batch.id < _decoded(cursor, uuid.UUID))
    return _page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def images(
    session: Session, batch: Batch, wanted: Filter = Filter(), *, limit: int, cursor: str | None = None
) -> Page[Classified]:
    """The images of a batch in the order of their arrival, each with its prediction."""
    query = classified(batch).order_by(Image.position)
    if wanted.state is not None:
        query = query.where(Image.state == wanted.state)
    if wanted.diagnosis is not None:
        query = query.where(Prediction.diagnosis == wanted.diagnosis)
    if wanted.name:
        query = query.where(Image.name.icontains(wanted.name, autoescape=True))
    if cursor is not None:
        query = query.where(Image.position > _decoded(cursor, int))
    rows: Sequence[Classified] = session.execute(query.limit(limit + 1)).all()
    return _page(rows, limit, lambda row: row[0].position)


def image(session: Session, batch: Batch, position: int) -> Classified:
    """One image of a batch with its prediction. Raises NotFound."""
    known = 1 <= position <= batch.received
    found = session.execute(classified(batch).where(Image.position == position)).one_or_none() if known else None
    if found is None:
        raise errors.NotFound("no_image", f"The batch has no image {position}.")
    return found


def classified(batch: Batch) -> sa.Select[Image, Prediction | None]:
    """A query for the images of a batch, each with its prediction by the batch's bundle."""
    by_bundle = (Prediction.image_id == Image.id) & (Prediction.bundle_id == batch.bundle_id)
    return sa.select(Image, Prediction).outerjoin(Prediction, by_bundle).where(Image.batch_id == batch.id)


def refusals(session: Session, batch_id: uuid.UUID, *, limit: int, cursor: str | None = None) -> Page[Refusal]:
    """What a batch refused, in the order of its refusal."""
    wanted = sa.select(Refusal).where(Refusal.batch_id == batch_id).order_by(Refusal.id)
    if cursor is not None:
        wanted = wanted.where(Refusal.id > _decoded(cursor, int))
    return _page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def archives(session: Session, batch_id: uuid.UUID, *, limit: int, cursor: str | None = None) -> Page[Archive]:
    """The archives of a batch, oldest first."""
    wanted = sa.select(Archive).where(Archive.batch_id == batch_id).order_by(Archive.id)
    if cursor is not None:
        wanted = wanted.where(Archive.id > _decoded(cursor, uuid.UUID))
    return _page(session.scalars(wanted.limit(limit + 1)).all(), limit, lambda row: row.id)


def archive(session: Session, batch_id: uuid.UUID, archive_id: uuid.UUID) -> Archive:
    """One archive of a batch. Raises NotFound."""
    found = session.scalar(sa.select(Archive).where(Archive.id == archive_id, Archive.batch_id == batch_id))
    if found is None:
        raise errors.NotFound("no_archive", f"The batch has no archive {archive_id}.")
    return found


def _page(rows: Sequence[T], limit: int, key: Callable[[T], Any]) -> Page[T]:
    """Turn up to ``limit + 1`` rows into a page; the one too many says that there is a next."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], _encoded(key(rows[limit - 1])))


def _encoded(key: Any) -> str:
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def _decoded(cursor: str, kind: Callable[[str], T]) -> T:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = kind(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
        if isinstance(key, int) and not 0 <= key < 2**63:
            raise ValueError
        return key
    except (ValueError, binascii.Error) as err:
        raise errors.Rejected(
            "bad_cursor", "The cursor is not one of ours; take it from `next_cursor` of the page before."
        ) from err
