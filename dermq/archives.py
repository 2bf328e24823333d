"""A ZIP on its way through a batch: receiving, stored, unpacking, then done, failed or cancelled.

The web receives and stores, the unpacker in the worker goes through the entries, the reaper ends what was abandoned.
"""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import arrivals, batches, db, errors, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive
from dermq.storage import BlobStore, Incoming


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


def keep(sessions: db.Sessions, blobs: BlobStore, archive_id: uuid.UUID, file: Incoming) -> None:
    """Keep the file of a wholly received archive, before the transaction that stores it.

    One that the batch has already, or does not take any more, is not kept. Raises Transient as
    ``arrivals.keep_files`` does.
    """
    batch_id = db.read(sessions, _wanting, archive_id, file.sha256)
    if batch_id is not None:
        arrivals.keep_files(sessions, blobs, batch_id, [file])


def store(session: Session, archive_id: uuid.UUID, file: Incoming) -> tuple[Archive, bool]:
    """Let an archive whose file was kept wait for unpacking; the flag says whether it is new to its batch.

    Identical bytes are a no-op: the archive that the batch has already is returned. Raises Conflict when the batch
    was cancelled meanwhile, Transient when the file was not kept a short time ago.
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
        arrivals.check_kept(file)
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


def drop_blob(
    session: Session, batch_id: uuid.UUID, sha256: str, blobs: BlobStore, *, older_than_seconds: float
) -> None:
    """Remove the stored bytes of an archive that has ended, unless the same bytes wait to be unpacked again.

    Bytes that were kept since ``older_than_seconds`` ago stay: they may be an upload whose row is yet to come.
    """
    transitions.lock_batches(session, [batch_id])
    waiting = _stored(session, batch_id, sha256)
    if waiting is None or waiting.state == ArchiveState.DONE:
        blobs.delete(batch_id, sha256, older_than_seconds=older_than_seconds)


def _wanting(session: Session, archive_id: uuid.UUID, sha256: str) -> uuid.UUID | None:
    """The batch that waits for the file of this archive, unless it has the same bytes already."""
    archive = session.get(Archive, archive_id)
    if archive is None or archive.state != ArchiveState.RECEIVING:
        return None
    return archive.batch_id if _stored(session, archive.batch_id, sha256) is None else None


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
