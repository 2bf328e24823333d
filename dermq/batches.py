"""Create, seal, cancel, retry and delete batches.

Every function takes a session and leaves the commit to ``db.transact``. States and counts are written by
``dermq.transitions`` alone; its docstring also gives the order in which rows are locked.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import uuid_utils.compat as uuid7
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from dermq import bundles, errors, events, transitions
from dermq.lifecycle import OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Batch, Bundle, Image
from dermq.principals import Principal
from dermq.transitions import LockedImage, Move

PAGE_IMAGES = 1_000
"""Images deleted in one transaction."""
_UNTRIED = {"suspect": False, "solo_losses": 0, "error_code": None, "error_detail": None}
"""Columns of an image without suspicion, losses and error."""


def make_id() -> uuid.UUID:
    """Return a new UUIDv7, which sorts after all that were made before."""
    return uuid.UUID(int=uuid7.uuid7().int)


@dataclass(frozen=True)
class Draft:
    """A batch to be created, as its lab describes it."""

    name: str
    id: uuid.UUID = field(default_factory=make_id)
    """Drawn before the transaction, so that a rerun uses the folder in which the files are already kept."""
    urgent: bool = False
    options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


def create(session: Session, lab_id: int, draft: Draft, bundle: bundles.Bundle, *, by: Principal) -> tuple[Batch, bool]:
    """Create a batch and return it with True, or with False the one that its Idempotency-Key created before.

    Raises Rejected when the key was used with another request, Conflict when that batch was deleted.
    """
    if (known := _find_created_before(session, lab_id, draft)) is not None:
        return known, False
    now = datetime.now(UTC)
    batch = Batch(
        id=draft.id,
        lab_id=lab_id,
        bundle=ensure_bundle_row(session, bundle),
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
    except IntegrityError:  # another request with the same key was committed first
        known = _find_created_before(session, lab_id, draft)
        if known is None:
            raise
        return known, False
    _add_event(session, batch, "created", by)
    return batch, True


def _find_created_before(session: Session, lab_id: int, draft: Draft) -> Batch | None:
    """Return the batch that an earlier run of this draft, or a request with its Idempotency-Key, has created."""
    same = Batch.id == draft.id
    if draft.idempotency_key is not None:
        same |= Batch.idempotency_key == draft.idempotency_key
    known = session.scalar(_select_with_bundle().where(Batch.lab_id == lab_id, same))
    if known is None:
        return None
    if known.fingerprint != draft.fingerprint:
        raise errors.Rejected(
            "idempotency_key_reused", "This Idempotency-Key was used with another request; use a new one."
        )
    if known.deleted_at is not None:
        raise errors.Conflict("batch_deleted", "The batch of this Idempotency-Key was deleted; use a new key.")
    return known


def ensure_bundle_row(session: Session, bundle: bundles.Bundle) -> Bundle:
    """Return the row of a bundle on disk, and add it when the bundle is new to the database."""
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
    """Return a lab's batch with its bundle. Raises NotFound, also when the batch belongs to another lab."""
    batch = session.scalar(_select_with_bundle().where(Batch.id == batch_id, Batch.lab_id == lab_id))
    if batch is None or batch.deleted_at is not None:
        raise _make_not_found(batch_id)
    return batch


def lock(session: Session, batch_id: uuid.UUID) -> Batch:
    """Lock a batch's row and return it as it is now. Raises NotFound when the batch was deleted."""
    found = transitions.lock_batches(session, [batch_id])
    if not found or found[0].deleted_at is not None:
        raise _make_not_found(batch_id)
    return found[0]


def check_open(batch: Batch, *, from_archive: bool = False) -> None:
    """Raise Conflict unless the batch takes images; a sealed batch takes them only from its stored archives."""
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled and takes no more images.")
    if batch.sealed_at is not None and not from_archive:
        raise errors.Conflict(
            "batch_sealed", "The upload of this batch is finished (sealed); create another batch for more images."
        )


def seal(session: Session, batch_id: uuid.UUID, *, by: Principal) -> Batch:
    """Seal a batch, which takes no more uploads from then on, and return it. Idempotent.

    Raises Conflict when the batch was cancelled, or while one of its archives is still being received.
    """
    batch = lock(session, batch_id)
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled and can no longer be sealed.")
    if batch.sealed_at is None:
        receiving = session.scalar(
            sa.select(sa.func.count())
            .select_from(Archive)
            .where(Archive.batch_id == batch_id, Archive.state == ArchiveState.RECEIVING)
        )
        if receiving:
            raise errors.Conflict(
                "archive_being_received", "An archive of this batch is still being received; seal the batch afterwards."
            )
        batch.sealed_at = datetime.now(UTC)
        _add_event(session, batch, "sealed", by)
        transitions.settle(batch)
        transitions.note_change(batch)
    return batch


def seal_idle(session: Session, batch_id: uuid.UUID, *, by: Principal, untouched_since: datetime) -> bool:
    """Seal a batch that its lab has not touched since a time; return whether it was sealed. Raises as ``seal``."""
    if lock(session, batch_id).touched_at >= untouched_since:
        return False
    seal(session, batch_id, by=by)
    return True


def cancel(session: Session, batch_id: uuid.UUID, *, by: Principal) -> Batch:
    """Mark a batch as cancelled; ``sweep`` then cancels what waits. Idempotent. Raises Conflict when finished."""
    batch = lock(session, batch_id)
    if batch.cancelled_at is None:
        if batch.finished_at is not None:
            raise errors.Conflict("batch_finished", "The batch has finished; there is nothing left to cancel.")
        batch.cancelled_at = datetime.now(UTC)
        batch.sealed_at = batch.sealed_at or batch.cancelled_at
        _add_event(session, batch, "cancelled", by)
        transitions.note_change(batch)
    return batch


def sweep(session: Session, batch_id: uuid.UUID) -> bool:
    """Cancel the open archives and the queued images of a cancelled batch; return whether there were any. Idempotent.

    Running images are left to their workers, which record the outcome.
    """
    archives = session.scalars(
        sa.select(Archive)
        .where(Archive.batch_id == batch_id, Archive.state.in_(OPEN_ARCHIVE))
        .order_by(Archive.id)
        .with_for_update()
    ).all()
    waiting = _lock_images(session, Image.batch_id == batch_id, Image.state == ImageState.QUEUED)
    batch = next(iter(transitions.lock_batches(session, [batch_id])), None)
    if batch is None or batch.cancelled_at is None:
        return False
    for archive in archives:
        transitions.move_archive(session, archive, ArchiveState.CANCELLED, error_code=None, error_detail=None)
    transitions.move_images(session, [Move(waiting, ImageState.QUEUED, ImageState.CANCELLED, _UNTRIED)])
    if transitions.settle(batch):
        transitions.note_change(batch)
    return bool(archives or waiting)


def retry(session: Session, batch_id: uuid.UUID, *, by: Principal) -> int:
    """Queue the failed images of a batch again and return how many.

    Raises Conflict when no image has failed or the batch was cancelled.
    """
    failed = _lock_images(session, Image.batch_id == batch_id, Image.state == ImageState.FAILED)
    batch = lock(session, batch_id)
    if batch.cancelled_at is not None:
        raise errors.Conflict("batch_cancelled", "The batch was cancelled; its images cannot be retried.")
    if not failed:
        raise errors.Conflict("nothing_failed", "No image of this batch has failed; there is nothing to retry.")
    transitions.move_images(session, [Move(failed, ImageState.FAILED, ImageState.QUEUED, _UNTRIED)])
    _add_event(session, batch, "retried", by, images=len(failed))
    transitions.note_change(batch, by_lab=True)
    return len(failed)


def mark_deleted(
    session: Session, batch_id: uuid.UUID, *, by: Principal, finished_before: datetime | None = None
) -> None:
    """Mark a batch as deleted, so that its lab no longer sees it; ``deletion.purge`` then removes it. Idempotent.

    With ``finished_before``, does so only if the batch finished before that time and was not retried since.
    """
    for batch in transitions.lock_batches(session, [batch_id]):
        is_kept = finished_before and (batch.finished_at is None or batch.finished_at >= finished_before)
        if batch.deleted_at is None and not is_kept:
            now = datetime.now(UTC)
            batch.deleted_at = now
            batch.cancelled_at = batch.cancelled_at or now
            batch.sealed_at = batch.sealed_at or now
            _add_event(session, batch, "deleted", by)
            transitions.note_change(batch)


def purge_page(session: Session, batch_id: uuid.UUID) -> bool:
    """Delete one page of a deleted batch's images, or its last rows; return whether there may be more to delete."""
    images = _lock_images(session, Image.batch_id == batch_id, limit=PAGE_IMAGES)
    if images:
        transitions.delete_images(session, images)
        return True
    transitions.delete_batch(session, batch_id)
    return False


def _lock_images(session: Session, *where: sa.ColumnElement[bool], limit: int | None = None) -> Sequence[LockedImage]:
    wanted = sa.select(Image.id, Image.batch_id).where(*where).order_by(Image.id).limit(limit)
    return session.execute(wanted.with_for_update()).all()


def _add_event(session: Session, batch: Batch, action: str, by: Principal, **detail: Any) -> None:
    events.add(session, action, by=by, lab_id=batch.lab_id, batch_id=batch.id, **detail)


def _select_with_bundle() -> sa.Select[Batch]:
    return sa.select(Batch).options(joinedload(Batch.bundle))


def _make_not_found(batch_id: uuid.UUID) -> errors.NotFound:
    return errors.NotFound("no_batch", f"You have no batch {batch_id}.")
