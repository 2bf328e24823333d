"""What happens to a batch: created, added to, sealed, cancelled, retried, settled, deleted.

Every function takes a session and leaves the commit to ``db.transact``. Locks are taken in one order everywhere:
queue, claim, archive, images by id, batches by id; ``dermq.arrivals``, which adds images, locks the batch first.
Counts change only in the transaction that moves the images.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import uuid_utils.compat as uuid7
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from dermq import bundles, errors, events, lifecycle
from dermq.lifecycle import OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Batch, Bundle, Image, Lab, Prediction, Refusal, Truth
from dermq.principals import Principal

PAGE_IMAGES = 1_000
"""Images deleted in one transaction."""
_MOST_PARAMETERS = 10_000
"""Ids in one statement; databases take some 30,000."""


def new_id() -> uuid.UUID:
    """A UUIDv7: newer ones sort after older ones."""
    return uuid.UUID(int=uuid7.uuid7().int)


@dataclass(frozen=True)
class Draft:
    """What a lab says of a batch that it creates."""

    name: str
    id: uuid.UUID = field(default_factory=new_id)
    """Drawn before the transaction: one that is run again must put files into the same folder."""
    urgent: bool = False
    options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


def create(session: Session, lab: Lab, draft: Draft, bundle: bundles.Bundle, *, by: Principal) -> tuple[Batch, bool]:
    """Create a batch, or return the one that the same Idempotency-Key created before; the flag says which.

    Raises Rejected when the key was used with another request.
    """
    if (known := _created_before(session, lab, draft)) is not None:
        return known, False
    now = datetime.now(UTC)
    batch = Batch(
        id=draft.id,
        lab_id=lab.id,
        bundle=bundle_row(session, bundle),
        name=draft.name,
        urgent=draft.urgent,
        options=draft.options or {},
        metadata_=draft.metadata or {},
        idempotency_key=draft.idempotency_key,
        fingerprint=draft.fingerprint,
        created_at=now,
        touched_at=now,
    )
    try:
        with session.begin_nested():
            session.add(batch)
    except IntegrityError:  # a request with the same key was faster
        known = _created_before(session, lab, draft)
        if known is None:
            raise
        return known, False
    _record(session, batch, "created", by)
    return batch, True


def _created_before(session: Session, lab: Lab, draft: Draft) -> Batch | None:
    """The batch that this draft, or another request with its Idempotency-Key, created before."""
    same = Batch.id == draft.id
    if draft.idempotency_key is not None:
        same |= Batch.idempotency_key == draft.idempotency_key
    known = session.scalar(_with_bundle().where(Batch.lab_id == lab.id, same))
    if known is None:
        return None
    if known.fingerprint != draft.fingerprint:
        raise errors.Rejected(
            "idempotency_key_reused", "This Idempotency-Key was used with another request; use a new one."
        )
    if known.deleted_at is not None:
        raise errors.Conflict("batch_deleted", "The batch that this Idempotency-Key created was deleted.")
    return known


def bundle_row(session: Session, bundle: bundles.Bundle) -> Bundle:
    """The row that stands for a bundle on disk, added when it is new."""
    wanted = sa.select(Bundle).where(
        Bundle.name == bundle.name, Bundle.version == bundle.version, Bundle.sha256 == bundle.sha256
    )
    if (row := session.scalar(wanted)) is not None:
        return row
    try:
        with session.begin_nested():
            row = Bundle(
                name=bundle.name,
                version=bundle.version,
                sha256=bundle.sha256,
                card=bundle.card.model_dump(mode="json"),
            )
            session.add(row)
        return row
    except IntegrityError:  # another program added it meanwhile
        return session.scalars(wanted).one()


def find(session: Session, lab_id: int, batch_id: uuid.UUID) -> Batch:
    """A lab's batch with its bundle. Raises NotFound, for another lab's batch as well."""
    batch = session.scalar(_with_bundle().where(Batch.id == batch_id, Batch.lab_id == lab_id))
    if batch is None or batch.deleted_at is not None:
        raise _not_found(batch_id)
    return batch


def lock(session: Session, batch_id: uuid.UUID) -> Batch:
    """Lock a batch's row. Raises NotFound when it is gone."""
    found = lock_all(session, [batch_id])
    if not found or found[0].deleted_at is not None:
        raise _not_found(batch_id)
    return found[0]


def lock_all(session: Session, batch_ids: Iterable[uuid.UUID]) -> Sequence[Batch]:
    """Lock the rows of several batches in the order of their ids."""
    return session.scalars(
        sa.select(Batch)
        .where(Batch.id.in_(set(batch_ids)))
        .order_by(Batch.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def check_open(batch: Batch, *, from_archive: bool = False) -> None:
    """Raise Conflict unless the batch takes images: a sealed one takes them only from its stored archives."""
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled and takes no more images.")
    if batch.sealed_at is not None and not from_archive:
        raise errors.Conflict("batch_sealed", "The batch is sealed and takes no more images; create another one.")


def seal(session: Session, batch_id: uuid.UUID, *, by: Principal) -> Batch:
    """Say that a batch is whole; safe to do twice. Raises Conflict while an archive is still being received."""
    batch = lock(session, batch_id)
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled.")
    if batch.sealed_at is None:
        receiving = session.scalar(
            sa.select(sa.func.count())
            .select_from(Archive)
            .where(Archive.batch_id == batch_id, Archive.state == ArchiveState.RECEIVING)
        )
        if receiving:
            raise errors.Conflict(
                "archive_being_received", "An archive of this batch is still being received; seal it afterwards."
            )
        batch.sealed_at = datetime.now(UTC)
        _record(session, batch, "sealed", by)
        settle(batch)
        changed(batch)
    return batch


def seal_idle(session: Session, batch_id: uuid.UUID, *, by: Principal, untouched_since: datetime) -> bool:
    """Seal an open batch unless its lab added to it meanwhile; says whether it did. Raises Conflict as ``seal``."""
    if lock(session, batch_id).touched_at >= untouched_since:
        return False
    seal(session, batch_id, by=by)
    return True


def cancel(session: Session, batch_id: uuid.UUID, *, by: Principal) -> Batch:
    """Mark a batch as cancelled; ``sweep`` then moves what waits. Safe to do twice. Raises Conflict when finished."""
    batch = lock(session, batch_id)
    if batch.cancelled_at is None:
        if batch.finished_at is not None:
            raise errors.Conflict("batch_finished", "The batch has finished; there is nothing left to cancel.")
        batch.cancelled_at = datetime.now(UTC)
        batch.sealed_at = batch.sealed_at or batch.cancelled_at
        _record(session, batch, "cancelled", by)
        changed(batch)
    return batch


def sweep(session: Session, batch_id: uuid.UUID) -> bool:
    """Close the open archives of a cancelled batch and cancel its waiting images; safe to do twice.

    What runs is recorded by its worker. Says whether there was anything to sweep.
    """
    archives = session.scalars(
        sa.select(Archive)
        .where(Archive.batch_id == batch_id, Archive.state.in_(OPEN_ARCHIVE))
        .order_by(Archive.id)
        .with_for_update()
    ).all()
    waiting = _lock_images(session, Image.batch_id == batch_id, Image.state == ImageState.QUEUED)
    found = lock_all(session, [batch_id])
    if not found or found[0].cancelled_at is None:
        return False
    for archive in archives:
        archive.state = ArchiveState.CANCELLED
        archive.claim_token = None
    _move(session, waiting, ImageState.QUEUED, ImageState.CANCELLED)
    batch = found[0]
    batch.archives_open -= len(archives)
    batch.queued -= len(waiting)
    batch.cancelled += len(waiting)
    settled = settle(batch)
    if archives or waiting or settled:
        changed(batch)
    return bool(archives or waiting)


def retry(session: Session, batch_id: uuid.UUID, *, by: Principal) -> int:
    """Queue the failed images of a batch again and say how many. Raises Conflict when there is nothing to retry."""
    failed = _lock_images(session, Image.batch_id == batch_id, Image.state == ImageState.FAILED)
    batch = lock(session, batch_id)
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled; its images cannot be retried.")
    if not failed:
        raise errors.Conflict("nothing_failed", "No image of this batch has failed; there is nothing to retry.")
    _move(session, failed, ImageState.FAILED, ImageState.QUEUED)
    batch.failed -= len(failed)
    batch.queued += len(failed)
    batch.finished_at = None
    _record(session, batch, "retried", by, images=len(failed))
    changed(batch, touched=True)
    return len(failed)


def mark_deleted(
    session: Session, batch_id: uuid.UUID, *, by: Principal, finished_before: datetime | None = None
) -> None:
    """Hide a batch for good; ``purge_page`` and the blob store then remove it. Safe to do twice.

    With ``finished_before`` only a batch that is finished since before then, and was not retried meanwhile.
    """
    for batch in lock_all(session, [batch_id]):
        kept = finished_before and (batch.finished_at is None or batch.finished_at >= finished_before)
        if batch.deleted_at is None and not kept:
            now = datetime.now(UTC)
            batch.deleted_at = now
            batch.cancelled_at = batch.cancelled_at or now
            batch.sealed_at = batch.sealed_at or now
            _record(session, batch, "deleted", by)
            changed(batch)


def purge_page(session: Session, batch_id: uuid.UUID) -> bool:
    """Delete one page of a deleted batch's rows and say whether more remain; the batch's own row goes last."""
    ids = _lock_images(session, Image.batch_id == batch_id, limit=PAGE_IMAGES)
    if ids:
        moved = Counter(session.scalars(sa.select(Image.state).where(Image.id.in_(ids)).order_by(Image.id)).all())
        for table in (Prediction, Truth):
            session.execute(sa.delete(table).where(table.image_id.in_(ids)))
        session.execute(sa.delete(Image).where(Image.id.in_(ids)))
        for batch in lock_all(session, [batch_id]):
            for state, count in moved.items():
                setattr(batch, state.value, getattr(batch, state.value) - count)
            batch.received -= len(ids)
        return True
    for kind in (Refusal, Archive):
        session.execute(sa.delete(kind).where(kind.batch_id == batch_id))
    session.execute(sa.delete(Batch).where(Batch.id == batch_id))
    return False


def settle(batch: Batch) -> bool:
    """Set ``finished_at`` when nothing of a locked batch is left to do, and say whether this did.

    Called in every transaction that changes counts, seals, cancels or closes an archive.
    """
    settled = (
        batch.finished_at is None
        and batch.sealed_at is not None
        and batch.archives_open == 0
        and batch.queued == 0
        and batch.running == 0
    )
    if settled:
        batch.finished_at = datetime.now(UTC)
    return settled


def changed(batch: Batch, *, touched: bool = False) -> None:
    """Note that a locked batch shows something new; ``touched`` when its lab gave it work."""
    batch.version += 1
    if touched:
        batch.touched_at = datetime.now(UTC)


def _lock_images(session: Session, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[int]:
    return list(session.scalars(sa.select(Image.id).where(*where).order_by(Image.id).limit(limit).with_for_update()))


def _move(session: Session, ids: list[int], source: ImageState, target: ImageState) -> None:
    """Move locked images and forget what befell them."""
    lifecycle.check(source, target)
    for at in range(0, len(ids), _MOST_PARAMETERS):
        session.execute(
            sa.update(Image)
            .where(Image.id.in_(ids[at : at + _MOST_PARAMETERS]), Image.state == source)
            .values(state=target, suspect=False, solo_losses=0, error_code=None, error_detail=None)
        )


def _record(session: Session, batch: Batch, action: str, by: Principal, **detail: Any) -> None:
    events.add(session, action, by=by, lab_id=batch.lab_id, batch_id=batch.id, **detail)


def _with_bundle() -> sa.Select[Batch]:
    return sa.select(Batch).options(joinedload(Batch.bundle))


def _not_found(batch_id: uuid.UUID) -> errors.NotFound:
    return errors.NotFound("no_batch", f"You have no batch {batch_id}.")
