"""The archives of a batch: receiving, then stored, then unpacking, then done, failed or cancelled.

The web receives and stores an archive, the intake worker unpacks it, and the reaper closes one whose upload stopped.
"""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import arrivals, batches, db, errors, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive
from dermq.storage import BlobStore, Incoming


def begin(session: Session, batch_id: uuid.UUID, archive_id: uuid.UUID, encoding: str | None = None) -> None:
    """Add an archive in state ``receiving``, which keeps its batch from being sealed. Idempotent.

    ``encoding`` is that of names that are not in Unicode, where the lab knows it.

    Raises Conflict when the batch takes no more files, NotFound when it is gone.
    """
    batch = batches.lock(session, batch_id)
    batches.check_open(batch)
    if session.get(Archive, archive_id) is not None:
        return
    transitions.add_archive(session, batch, archive_id).encoding = encoding
    transitions.note_change(batch, by_lab=True)


def touch(session: Session, archive_id: uuid.UUID, received_bytes: int) -> None:
    """Note how many bytes of an archive have arrived by now. Raises Conflict when it was closed meanwhile."""
    found = session.execute(
        sa.update(Archive)
        .where(Archive.id == archive_id, Archive.state == ArchiveState.RECEIVING)
        .values(touched_at=datetime.now(UTC), bytes=received_bytes)
        .returning(Archive.id)
    ).scalar_one_or_none()
    if found is None:
        raise _make_closed_error()


def keep(sessions: db.Sessions, blobs: BlobStore, archive_id: uuid.UUID, file: Incoming) -> None:
    """Put the file of a completely received archive in its final place; call it before the transaction of ``store``.

    Does nothing when the batch has the same bytes already or takes no more files. Raises Transient as
    ``arrivals.keep_files`` does.
    """
    batch_id = db.read(sessions, _find_batch_in_need, archive_id, file.sha256)
    if batch_id is not None:
        arrivals.keep_files(sessions, blobs, batch_id, [file])


def store(session: Session, archive_id: uuid.UUID, file: Incoming) -> tuple[Archive, bool]:
    """Move an archive whose file was kept to ``stored``; return it and whether it is new to its batch.

    When the batch has an archive with the same bytes already, that one is returned and the new row is deleted. Raises
    Conflict when the archive was closed or its batch cancelled meanwhile, Transient when the file was not kept within
    the last half hour (``arrivals.check_kept``).
    """
    archive = lock(session, archive_id)
    if archive is None:
        raise _make_closed_error()
    batch = batches.lock(session, archive.batch_id)
    if archive.sha256 == file.sha256:
        return archive, True  # this is a rerun, and the run before it was committed after all
    if archive.state != ArchiveState.RECEIVING or batch.cancelled_at is not None:
        raise _make_closed_error()
    same = _find_same(session, archive.batch_id, file.sha256)
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
    """Delete the file of an archive that has ended, unless another archive of the batch still needs it.

    A file that was kept less than ``older_than_seconds`` ago stays: another upload may be about to write its row.
    """
    transitions.lock_batches(session, [batch_id])
    waiting = _find_same(session, batch_id, sha256)
    if waiting is None or waiting.state == ArchiveState.DONE:
        blobs.delete(batch_id, sha256, older_than_seconds=older_than_seconds)


def _find_batch_in_need(session: Session, archive_id: uuid.UUID, sha256: str) -> uuid.UUID | None:
    """Return the batch that needs the file of this archive, or None: closed, or the batch has the bytes already."""
    archive = session.get(Archive, archive_id)
    if archive is None or archive.state != ArchiveState.RECEIVING:
        return None
    return archive.batch_id if _find_same(session, archive.batch_id, sha256) is None else None


def _find_same(session: Session, batch_id: uuid.UUID, sha256: str) -> Archive | None:
    """Return the batch's archive with these bytes that is being unpacked, waits or is done, in this order."""
    return session.scalar(
        sa.select(Archive)
        .where(
            Archive.batch_id == batch_id,
            Archive.sha256 == sha256,
            Archive.state.in_([ArchiveState.STORED, ArchiveState.UNPACKING, ArchiveState.DONE]),
        )
        .order_by(Archive.state.desc())  # by name: unpacking, stored, done
        .limit(1)
    )


def abandon(session: Session, archive_id: uuid.UUID, error: errors.DermqError) -> None:
    """Let an archive whose upload ended early fail with ``error``. Idempotent."""
    archive = lock(session, archive_id)
    if archive is not None and archive.state == ArchiveState.RECEIVING:
        close(session, archive, ArchiveState.FAILED, error)


def close(session: Session, archive: Archive, state: ArchiveState, error: errors.DermqError | None = None) -> None:
    """Move a locked, open archive to a final state, with the error of one that failed. Its batch is settled."""
    code, detail = (None, None) if error is None else (error.code, error.detail[:1000])
    transitions.move_archive(session, archive, state, error_code=code, error_detail=detail)


def put_back(session: Session, archive: Archive, reason: errors.Transient | None) -> None:
    """Store a locked archive that is being unpacked again, with the reason why it waits although its turn had come.

    The status of its batch changes when the reason does, so that pages show it.
    """
    code, detail = (None, None) if reason is None else (reason.code, reason.detail[:1000])
    is_news = code != archive.error_code
    transitions.move_archive(session, archive, ArchiveState.STORED, error_code=code, error_detail=detail)
    if is_news:
        for batch in transitions.lock_batches(session, [archive.batch_id]):
            transitions.note_change(batch)


def count_waiting(session: Session, code: str) -> int:
    """Return how many stored archives wait for this reason."""
    counted = sa.select(sa.func.count()).select_from(Archive)
    return session.scalar(counted.where(Archive.state == ArchiveState.STORED, Archive.error_code == code)) or 0


def lock(session: Session, archive_id: uuid.UUID) -> Archive | None:
    """Lock an archive's row and return it as it is now, or None when it is gone."""
    return session.scalar(
        sa.select(Archive).where(Archive.id == archive_id).with_for_update().execution_options(populate_existing=True)
    )


def _make_closed_error() -> errors.Conflict:
    """Return the error for an archive that was closed while it was being received."""
    return errors.Conflict("archive_closed", "The archive was closed: its batch was cancelled or its upload timed out.")
