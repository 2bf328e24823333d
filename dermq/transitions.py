"""The moves of images and archives: the only place that writes a state or a count.

A batch counts its images by state. States and counts change here, in one transaction, so that they always agree. Each
function takes rows that the caller has locked, checks the move against the table in ``dermq.lifecycle``,
writes the rows, then locks their batches in the order of their ids, moves the counts, and finishes a batch that has
nothing left to do. ``db.transact`` commits.

Rows are locked in one order everywhere: queue, claim, archive, images by id, batches by id, use of a lab. A function
that adds images locks the batch first and touches no other image.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import lifecycle, progress
from dermq.lifecycle import ARCHIVE_MOVES, IMAGE_MOVES, OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Batch, Image, LabUse, Prediction, Refusal, Truth

_KEPT_ARCHIVE = frozenset({ArchiveState.STORED, ArchiveState.UNPACKING})
"""States of an archive in which its file is kept."""
_MOST_PARAMETERS = 10_000
"""Most ids in one statement; SQLite takes 32,766 parameters."""


class LockedImage(Protocol):
    """An image whose row the caller has locked."""

    @property
    def id(self) -> int: ...

    @property
    def batch_id(self) -> uuid.UUID: ...


@dataclass(frozen=True)
class Move:
    """Locked images that go from one state to another."""

    images: Sequence[LockedImage]
    source: ImageState
    target: ImageState | None
    """None deletes them."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Other columns to write with the state, such as the claim, the error or the losses."""


def move_images(session: Session, moves: Iterable[Move]) -> list[Batch]:
    """Move locked images and their counts, and return their batches, locked.

    Make all moves of a transaction in one call, because the batches have to be locked in the order of their ids. Raises
    ValueError, which rolls the transaction back, when a move is not allowed or an image is not in the ``source`` state.
    """
    counts: dict[uuid.UUID, Counter[str]] = {}
    for move in moves:
        lifecycle.check(IMAGE_MOVES, move.source, move.target)
        _write(session, Image, [image.id for image in move.images], move.source, move.target, move.values)
        for batch_id, images in Counter(image.batch_id for image in move.images).items():
            counts.setdefault(batch_id, Counter()).update(_find_changes(move.source, move.target, images))
    return [_count(batch, counts[batch.id]) for batch in lock_batches(session, counts)]


def add_images(session: Session, batch: Batch, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add images to a locked batch; ``rows`` are their columns but batch and state.

    Return the bytes that the lab keeps then. Its use is locked, so no other row may be locked after this.
    """
    lifecycle.check(IMAGE_MOVES, None, ImageState.QUEUED)
    change = _sum_new_bytes(session, batch.id, rows)
    if rows:
        born = {"batch_id": batch.id, "state": ImageState.QUEUED}
        session.execute(sa.insert(Image), [{**row, **born} for row in rows])
        _count(batch, _find_changes(None, ImageState.QUEUED, len(rows)))
    return change_kept_bytes(session, batch, change)


def delete_images(session: Session, images: Sequence[LockedImage]) -> None:
    """Delete locked images in any state, with their predictions and truths."""
    ids = [image.id for image in images]
    for table in (Prediction, Truth):
        session.execute(sa.delete(table).where(table.image_id.in_(ids)))
    by_state: dict[ImageState, list[LockedImage]] = {}
    states = dict(session.execute(sa.select(Image.id, Image.state).where(Image.id.in_(ids))).all())
    for image in images:
        by_state.setdefault(states[image.id], []).append(image)
    move_images(session, [Move(found, state, None) for state, found in by_state.items()])


def delete_batch(session: Session, batch_id: uuid.UUID) -> None:
    """Delete a batch that has no images any more, with its archives and refusals."""
    for state in session.scalars(sa.select(Archive.state).where(Archive.batch_id == batch_id).distinct()):
        lifecycle.check(ARCHIVE_MOVES, state, None)
    for table in (Refusal, Archive):
        session.execute(sa.delete(table).where(table.batch_id == batch_id))
    for batch in lock_batches(session, [batch_id]):
        change_kept_bytes(session, batch, -batch.kept_bytes)
    session.execute(sa.delete(Batch).where(Batch.id == batch_id))


def add_archive(session: Session, batch: Batch, archive_id: uuid.UUID) -> Archive:
    """Add an archive that is being received to a locked batch."""
    lifecycle.check(ARCHIVE_MOVES, None, ArchiveState.RECEIVING)
    now = datetime.now(UTC)
    archive = Archive(id=archive_id, batch_id=batch.id, state=ArchiveState.RECEIVING, created_at=now, touched_at=now)
    session.add(archive)
    _count(batch, Counter(archives_open=1))
    return archive


def move_archive(session: Session, archive: Archive, target: ArchiveState | None, **values: Any) -> None:
    """Move a locked archive, or delete it when ``target`` is None, and write ``values`` with the move.

    Its claim is cleared unless ``values`` give one. Raises ValueError as ``move_images`` does.
    """
    source = archive.state
    lifecycle.check(ARCHIVE_MOVES, source, target)
    _write(session, Archive, [archive.id], source, target, values)
    kept = values.get("bytes", archive.bytes) * ((target in _KEPT_ARCHIVE) - (source in _KEPT_ARCHIVE))
    closed = source in OPEN_ARCHIVE and target not in OPEN_ARCHIVE
    for batch in lock_batches(session, [archive.batch_id] if kept or closed else []):
        if closed:
            _count(batch, Counter(archives_open=-1))
        if kept:
            change_kept_bytes(session, batch, kept)


def add_refusals(session: Session, batch: Batch, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add refusals to a locked batch and count them; ``rows`` are their columns but the batch."""
    if rows:
        session.execute(sa.insert(Refusal), [{**row, "batch_id": batch.id} for row in rows])
        _count(batch, Counter(refused=len(rows)))


def change_kept_bytes(session: Session, batch: Batch, change: int) -> int:
    """Change the bytes that a locked batch and its lab keep, and return those of the lab.

    The row of the lab's use is the last one that a transaction locks.
    """
    batch.kept_bytes += change
    mine = sa.update(LabUse).where(LabUse.lab_id == batch.lab_id).values(kept_bytes=LabUse.kept_bytes + change)
    with session.no_autoflush:  # the batch is written once, when all of it has changed
        return session.execute(mine.returning(LabUse.kept_bytes)).scalar_one()


def settle(batch: Batch) -> bool:
    """Set ``finished_at`` of a locked batch if it is sealed with nothing left to do, else clear it.

    Return whether this changed anything. It is called whenever counts change and when a batch is sealed.
    """
    left = batch.archives_open or batch.queued or batch.running
    finished = batch.sealed_at is not None and not left
    if finished == (batch.finished_at is not None):
        return False
    batch.finished_at = datetime.now(UTC) if finished else None
    return True


def note_change(batch: Batch, *, by_lab: bool = False) -> None:
    """Raise the version of a locked batch, because its status changed; ``by_lab`` if its lab added work."""
    batch.version += 1
    if by_lab:
        batch.touched_at = datetime.now(UTC)


def lock_batches(session: Session, batch_ids: Iterable[uuid.UUID]) -> Sequence[Batch]:
    """Lock the rows of several batches in the order of their ids, and return them as they are now."""
    wanted = set(batch_ids)
    if not wanted:
        return []
    return session.scalars(
        sa.select(Batch)
        .where(Batch.id.in_(wanted))
        .order_by(Batch.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def _sum_new_bytes(session: Session, batch_id: uuid.UUID, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the bytes of the files that a batch does not have yet: equal files are stored once."""
    sizes: dict[str, int] = {row["sha256"]: row["bytes"] for row in rows}
    known = sa.select(Image.sha256).where(Image.batch_id == batch_id, Image.sha256.in_(sizes)).distinct()
    return sum(sizes.values()) - sum(int(sizes[sha256]) for sha256 in session.scalars(known))


def _write(
    session: Session,
    table: type[Image | Archive],
    ids: list[Any],
    source: ImageState | ArchiveState,
    target: ImageState | ArchiveState | None,
    values: Mapping[str, Any],
) -> None:
    """Write a move of rows. Raises ValueError unless every row is still in the ``source`` state."""
    for at in range(0, len(ids), _MOST_PARAMETERS):
        page = ids[at : at + _MOST_PARAMETERS]
        where = (table.id.in_(page), table.state == source)
        statement: sa.Update | sa.Delete = sa.delete(table).where(*where)
        if target is not None:
            statement = sa.update(table).where(*where).values(state=target, **{"claim_token": None, **values})
        moved = cast(sa.CursorResult[Any], session.execute(statement)).rowcount
        if moved != len(page):
            raise ValueError(f"{moved} of {len(page)} rows of {table.__tablename__} were {source} and could be moved.")


def _find_changes(source: ImageState | None, target: ImageState | None, images: int) -> Counter[str]:
    """Return what a move of this number of images changes in the counts of their batch."""
    changes: Counter[str] = Counter()
    if source is None:
        changes["received"] += images
    else:
        changes[source.value] -= images
    if target is None:
        changes["received"] -= images
    else:
        changes[target.value] += images
    return changes


def _count(batch: Batch, changes: Counter[str]) -> Batch:
    """Change the counts of a locked batch, measure its rate, settle it and raise its version."""
    for name, change in changes.items():
        setattr(batch, name, getattr(batch, name) + change)
    began = changes[ImageState.RUNNING] > 0 and batch.measured_at is None
    if began or changes[ImageState.RUNNING] < 0:
        progress.measure(batch, datetime.now(UTC))
    settle(batch)
    note_change(batch)
    return batch
