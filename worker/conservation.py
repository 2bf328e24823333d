"""The conservation check: a batch's counts are what its rows say, and no row is lost or counted twice."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq.lifecycle import OPEN_ARCHIVE, ImageState
from dermq.models import Archive, Batch, Image


def next_batches(session: Session, after: uuid.UUID, most: int) -> list[uuid.UUID]:
    """The ids of the next few batches that are not being deleted, in the order of their ids."""
    wanted = sa.select(Batch.id).where(Batch.id > after, Batch.deleted_at.is_(None)).order_by(Batch.id).limit(most)
    return list(session.scalars(wanted))


def differences(session: Session, batch_id: uuid.UUID) -> dict[str, tuple[int, int]]:
    """What a batch counts and what its rows give, where the two differ.

    One statement, so that it sees one state of the database even while workers record.
    """
    images = sa.select(sa.func.count()).select_from(Image).where(Image.batch_id == batch_id)
    archives = sa.select(sa.func.count()).select_from(Archive).where(Archive.batch_id == batch_id)
    rows: dict[str, Any] = {state.value: images.where(Image.state == state) for state in ImageState}
    rows["received"] = images
    rows["archives_open"] = archives.where(Archive.state.in_(OPEN_ARCHIVE))
    columns = [getattr(Batch, name).label(f"{name}_counted") for name in rows]
    columns += [counted.scalar_subquery().label(name) for name, counted in rows.items()]
    found = session.execute(sa.select(*columns).where(Batch.id == batch_id)).mappings().first()
    if found is None:
        return {}
    pairs = {name: (int(found[f"{name}_counted"]), int(found[name])) for name in rows}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
