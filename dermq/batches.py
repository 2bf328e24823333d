"""What happens to a batch: created, added to, sealed, cancelled, retried, settled, deleted.

Every function takes a session and leaves the commit to ``db.transact``. Locks are taken in one order everywhere:
queue, claim, archive, images by id, batches by id. Who adds images locks the batch first and touches no other image.
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

from dermq import arrivals, bundles, errors, lifecycle, models
from dermq.arrivals import Arrival
from dermq.blobs import Blobs
from dermq.lifecycle import OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Batch, Bundle, Event, Image, Lab, Prediction, Refusal, Truth
from dermq.settings import Settings

PAGE_IMAGES = 1_000
"""Images deleted in one transaction."""
_MOST_PARAMETERS = 10_000
"""Ids in one statement; databases take some 30,000."""
_RATE_SECONDS = 1.0
"""Least time between two measurements of a batch's rate."""
_RATE_MEMORY = 0.8
"""Weight of the past in the smoothed rate."""
_RATE_STALE_SECONDS = 120.0
"""After a pause this long the rate is measured afresh."""


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


@dataclass(frozen=True)
class Verdict:
    """What became of one file: received or unchanged at a position, or refused with an error."""

    name: str
    position: int | None = None
    unchanged: bool = False
    error: errors.DermqError | None = None


def create(session: Session, lab: Lab, draft: Draft, bundle: bundles.Bundle) -> tuple[Batch, bool]:
    """Create a batch, or return the one that the same Idempotency-Key created before; the flag says which.

    Raises Rejected when the key was used with another request.
    """
    if draft.idempotency_key is not None:
        session.execute(sa.select(Lab.id).where(Lab.id == lab.id).with_for_update())
        known = session.scalar(
            _with_bundle().where(Batch.lab_id == lab.id, Batch.idempotency_key == draft.idempotency_key)
        )
        if known is not None:
            if known.fingerprint != draft.fingerprint:
                raise errors.Rejected(
                    "idempotency_key_reused", "This Idempotency-Key was used with another request; use a new one."
                )
            if known.deleted_at is not None:
                raise errors.Conflict("batch_deleted", "The batch that this Idempotency-Key created was deleted.")
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
    session.add(batch)
    session.flush()
    record(session, batch, "created")
    return batch, True


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


def receive(
    session: Session,
    batch_id: uuid.UUID,
    arrivals: Sequence[Arrival],
    blobs: Blobs,
    settings: Settings,
    *,
    refused: Sequence[tuple[str, errors.DermqError]] = (),
    archive_id: uuid.UUID | None = None,
) -> list[Verdict]:
    """Put checked files into a batch and give a verdict on each, in order; keep the refusals of the others.

    The same name with the same bytes changes nothing; with other bytes, or over a limit, the file is refused and the
    refusal kept. Raises NotFound and Conflict when the batch takes no images at all.
    """
    batch = lock(session, batch_id)
    check_open(batch, from_archive=archive_id is not None)
    known = _known_names(session, batch_id, [arrival.name for arrival in arrivals])
    room = _room(session, batch, settings)
    verdicts: list[Verdict] = []
    fresh: list[tuple[Arrival, int]] = []
    for arrival in arrivals:
        verdict = _verdict(arrival, known, room, position=batch.received + len(fresh) + 1)
        if verdict.error is None and not verdict.unchanged and verdict.position is not None:
            fresh.append((arrival, verdict.position))
            known[arrival.name] = (arrival.file.sha256, verdict.position)
            room = room.less_one()
        verdicts.append(verdict)
    if fresh:
        blobs.put(batch_id, [arrival.file for arrival, _ in fresh])
        session.execute(sa.insert(Image), [_image_row(batch_id, arrival, position) for arrival, position in fresh])
        batch.received += len(fresh)
        batch.queued += len(fresh)
    conflicts = [(verdict.name, verdict.error) for verdict in verdicts if verdict.error is not None]
    for name, error in (*refused, *conflicts):
        _add_refusal(session, batch, name, error, archive_id)
    changed(batch, touched=True)
    return verdicts


def refuse(
    session: Session,
    batch_id: uuid.UUID,
    name: str,
    error: errors.DermqError,
) -> None:
    """Keep the refusal of a file that never became an arrival."""
    batch = lock(session, batch_id)
    check_open(batch)
    _add_refusal(session, batch, name, error, None)
    changed(batch, touched=True)


def seal(session: Session, batch_id: uuid.UUID) -> Batch:
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
        record(session, batch, "sealed")
        settle(batch)
        changed(batch)
    return batch


def cancel(session: Session, batch_id: uuid.UUID) -> Batch:
    """Mark a batch as cancelled; ``sweep`` then moves what waits. Safe to do twice. Raises Conflict when finished."""
    batch = lock(session, batch_id)
    if batch.cancelled_at is None:
        if batch.finished_at is not None:
            raise errors.Conflict("batch_finished", "The batch has finished; there is nothing left to cancel.")
        batch.cancelled_at = datetime.now(UTC)
        batch.sealed_at = batch.sealed_at or batch.cancelled_at
        record(session, batch, "cancelled")
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
    settle(batch)
    changed(batch)
    return bool(archives or waiting)


def retry(session: Session, batch_id: uuid.UUID) -> int:
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
    record(session, batch, "retried", images=len(failed))
    changed(batch)
    return len(failed)


def mark_deleted(session: Session, batch_id: uuid.UUID) -> None:
    """Hide a batch for good; ``purge_page`` and the blob store then remove it. Safe to do twice."""
    for batch in lock_all(session, [batch_id]):
        if batch.deleted_at is None:
            now = datetime.now(UTC)
            batch.deleted_at = now
            batch.cancelled_at = batch.cancelled_at or now
            batch.sealed_at = batch.sealed_at or now
            record(session, batch, "deleted")
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


def settle(batch: Batch) -> None:
    """Set ``finished_at`` when nothing of a locked batch is left to do.

    Called in every transaction that changes counts, seals, cancels or closes an archive.
    """
    if (
        batch.finished_at is None
        and batch.sealed_at is not None
        and batch.archives_open == 0
        and batch.queued == 0
        and batch.running == 0
    ):
        batch.finished_at = datetime.now(UTC)


def measure(batch: Batch, now: datetime) -> None:
    """Measure a locked batch's rate, at most once a second."""
    images = batch.done + batch.failed
    started = batch.measured_at
    seconds = (now - started).total_seconds() if started else 0.0
    if started is None or seconds > _RATE_STALE_SECONDS or images < batch.measured_images:
        batch.measured_at, batch.measured_images = now, images
        batch.rate_recent = batch.rate_smoothed = None
    elif seconds >= _RATE_SECONDS:
        rate = (images - batch.measured_images) / seconds
        past = batch.rate_smoothed if batch.rate_smoothed is not None else rate
        batch.rate_recent = rate
        batch.rate_smoothed = _RATE_MEMORY * past + (1 - _RATE_MEMORY) * rate
        batch.measured_at, batch.measured_images = now, images


def changed(batch: Batch, *, touched: bool = False) -> None:
    """Note that a locked batch shows something new; ``touched`` when its lab added to it."""
    batch.version += 1
    if touched:
        batch.touched_at = datetime.now(UTC)


def record(session: Session, batch: Batch, action: str, *, actor: str = "lab", **detail: Any) -> None:
    """Add an event to the audit."""
    session.add(
        Event(at=datetime.now(UTC), lab_id=batch.lab_id, batch_id=batch.id, actor=actor, action=action, detail=detail)
    )


@dataclass(frozen=True)
class _Room:
    """How many more images may come, and the error when none may."""

    images: int
    error: errors.DermqError

    def less_one(self) -> "_Room":
        return _Room(self.images - 1, self.error)


def _room(session: Session, batch: Batch, settings: Settings) -> _Room:
    most = settings.max_images_per_batch
    full = errors.TooLarge("batch_full", f"The batch holds {most:,} images, the most that is accepted.")
    room = _Room(most - batch.received, full)
    quota = session.scalar(sa.select(Lab.max_waiting_images).where(Lab.id == batch.lab_id))
    if quota is None:
        return room
    waiting = session.scalar(sa.select(sa.func.sum(Batch.queued)).where(Batch.lab_id == batch.lab_id)) or 0
    over = errors.TooLarge("lab_quota", f"The lab's quota of {quota:,} waiting images is used up; try again later.")
    return min(room, _Room(quota - waiting, over), key=lambda candidate: candidate.images)


def _verdict(arrival: Arrival, known: dict[str, tuple[str, int]], room: _Room, *, position: int) -> Verdict:
    if arrival.name in known:
        sha256, at = known[arrival.name]
        if sha256 == arrival.file.sha256:
            return Verdict(arrival.name, at, unchanged=True)
        taken = errors.Conflict(
            "name_taken", "The batch has another image of this name; names are unique in a batch and bytes stay."
        )
        return Verdict(arrival.name, error=taken)
    if room.images <= 0:
        return Verdict(arrival.name, error=room.error)
    return Verdict(arrival.name, position)


def _known_names(session: Session, batch_id: uuid.UUID, names: list[str]) -> dict[str, tuple[str, int]]:
    found = session.execute(
        sa.select(Image.name, Image.sha256, Image.position).where(Image.batch_id == batch_id, Image.name.in_(names))
    )
    return {name: (sha256, position) for name, sha256, position in found}


def _image_row(batch_id: uuid.UUID, arrival: Arrival, position: int) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "position": position,
        "name": arrival.name,
        "sha256": arrival.file.sha256,
        "bytes": arrival.file.bytes,
        "width": arrival.header.width,
        "height": arrival.header.height,
        "state": ImageState.QUEUED,
    }


def _add_refusal(
    session: Session, batch: Batch, name: str, error: errors.DermqError, archive_id: uuid.UUID | None
) -> None:
    """Keep a refusal once: a client that tries the same file again adds nothing."""
    shown = arrivals.printable(name)[: models.Refusal.name.type.length]
    same = sa.select(Refusal.id).where(
        Refusal.batch_id == batch.id,
        Refusal.name == shown,
        Refusal.code == error.code,
        Refusal.archive_id.is_(None) if archive_id is None else Refusal.archive_id == archive_id,
    )
    if session.scalar(same.limit(1)) is not None:
        return
    session.add(
        Refusal(
            batch_id=batch.id,
            archive_id=archive_id,
            name=shown,
            code=error.code,
            detail=error.detail[:1000],
            created_at=datetime.now(UTC),
        )
    )
    session.flush()
    batch.refused += 1


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


def _with_bundle() -> sa.Select[Batch]:
    return sa.select(Batch).options(joinedload(Batch.bundle))


def _not_found(batch_id: uuid.UUID) -> errors.NotFound:
    return errors.NotFound("no_batch", f"You have no batch {batch_id}.")
