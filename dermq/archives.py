"""A ZIP on its way through a batch: receiving, stored, unpacking, then done, failed or cancelled.

The web receives and stores, the unpacker in the worker goes through the entries, the reaper ends what was abandoned.
"""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import arrivals, batches, errors, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive
from dermq.storage.local import Blobs, Incoming


def begin(session: Session, batch_id: uuid.UUID, archive_id: uuid.UUID) -> None:
    """Note that an archive is being received, so that its batch is not sealed meanwhile. Safe to do twice."""
    batch = batches.lock(session, batch_id)
    batches.check_open(batch)
    if session.get(Archive, archive_id) is not None:
        return
    transitions.add_archive(session, batch, archive_id)
    transitions.note_change(batch, by_lab=True)


def touch(session: Session, archive_id: uuid.UUID, received_bytes: int) -> None:
    """Note that bytes still arrive. Raises Conflict when the archive was closed meanwhile."""
    found = session.execute(
        sa.update(Archive)
        .where(Archive.id == archive_id, Archive.state == ArchiveState.RECEIVING)
        .values(touched_at=datetime.now(UTC), bytes=received_bytes)
        .returning(Archive.id)
    ).scalar_one_or_none()
    if found is None:
        raise closed()


def store(session: Session, archive_id: uuid.UUID, file: Incoming, blobs: Blobs) -> tuple[Archive, bool]:
    """Keep a wholly received archive for unpacking; the flag says whether it is new to its batch.

    Identical bytes are a no-op: the archive that the batch has already is returned. Raises Conflict when the batch
    was cancelled meanwhile, Transient as ``arrivals.keep`` does.
    """
    archive = lock(session, archive_id)
    if archive is None:
        raise closed()
    batch = batches.lock(session, archive.batch_id)
    if archive.sha256 == file.sha256:
        return archive, True  # an earlier run of this transaction was committed after all; it may be unpacked already
    if archive.state != ArchiveState.RECEIVING or batch.cancelled_at is not None:
        raise closed()
    same = _stored(session, archive.batch_id, file.sha256)
    if same is not None:
        transitions.move_archive(session, archive, None)
    else:
        arrivals.keep(session, blobs, archive.batch_id, [file])
        transitions.move_archive(
            session,
            archive,
            ArchiveState.STORED,
            sha256=file.sha256,
            bytes=file.bytes,
            touched_at=datetime.now(UTC),
        )
    transitions.note_change(batch, by_lab=True)
    return same or archive, same is None


def drop_blob(session: Session, batch_id: uuid.UUID, sha256: str, blobs: Blobs) -> None:
    """Remove the stored bytes of an archive that has ended, unless the same bytes wait to be unpacked again."""
    transitions.lock_batches(session, [batch_id])
    waiting = _stored(session, batch_id, sha256)
    if waiting is None or waiting.state == ArchiveState.DONE:
        blobs.delete(batch_id, sha256)


def _stored(session: Session, batch_id: uuid.UUID, sha256: str) -> Archive | None:
    """The batch's archive of these bytes that waits, is being unpacked or, failing that, was unpacked."""
    return session.scalar(
        sa.select(Archive)
        .where(
            Archive.batch_id == batch_id,
            Archive.sha256 == sha256,
            Archive.state.in_([ArchiveState.STORED, ArchiveState.UNPACKING, ArchiveState.DONE]),
        )
        .order_by(Archive.state.desc())  # unpacking, stored, done
        .limit(1)
    )


def abandon(session: Session, archive_id: uuid.UUID, error: errors.DermqError) -> None:
    """Close an archive whose upload ended early; safe to do twice."""
    archive = lock(session, archive_id)
    if archive is not None and archive.state == ArchiveState.RECEIVING:
        close(session, archive, ArchiveState.FAILED, error)


def close(session: Session, archive: Archive, state: ArchiveState, error: errors.DermqError | None = None) -> None:
    """Move a locked, open archive to its last state and settle its batch."""
    failure = {} if error is None else {"error_code": error.code, "error_detail": error.detail[:1000]}
    transitions.move_archive(session, archive, state, **failure)


def lock(session: Session, archive_id: uuid.UUID) -> Archive | None:
    """Lock an archive's row."""
    return session.scalar(
        sa.select(Archive).where(Archive.id == archive_id).with_for_update().execution_options(populate_existing=True)
    )


def closed() -> errors.Conflict:
    """The error for an archive that was closed while somebody worked on it."""
    return errors.Conflict("archive_closed", "The archive was closed: its batch was cancelled or its upload timed out.")
