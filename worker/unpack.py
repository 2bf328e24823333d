"""Unpacks archives into their batches, an entry at a time, and resumes where it was stopped.

A page of entries is written to incoming files and checked, then recorded in one transaction together with where to go
on, so that every entry is taken exactly once whatever is killed. After a slice of time the archive is put back, so
that a large one does not keep the others waiting.
"""

import contextlib
import logging
import struct
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import BinaryIO

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, arrivals, db, errors
from dermq.arrivals import Arrival
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Claim
from dermq.queue import Queue
from dermq.settings import Settings
from worker import claims
from worker.heartbeat import Heartbeat
from worker.runtime import Runtime
from worker.shutdown import Stop

log = logging.getLogger(__name__)

PAGE_ENTRIES = 64
PAGE_SECONDS = 1.0
"""A page ends after so many entries or so long, whichever comes first."""
SLICE_SECONDS = 15.0
"""After so long an archive is put back behind the others."""
MAX_DIRECTORY_BYTES = 32_000_000
"""The list of entries is read into memory; a longer one is an attack."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others inflate whole chunks at a time: a few hundred bytes would take gigabytes of memory."""
_CHUNK_BYTES = 256 * 1024
_PAUSE_SECONDS = 2.0
_SKIPPED_FOLDER = "__MACOSX"
_SKIPPED_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_SKIPPED_NAMES_KEPT = 100


@dataclass(frozen=True)
class Task:
    """An archive that is ours until the lease runs out."""

    token: uuid.UUID
    archive_id: uuid.UUID
    batch_id: uuid.UUID
    sha256: str
    next_entry: int
    unpacked_bytes: int


@dataclass
class Page:
    """Verdicts on the next few entries."""

    next_entry: int
    unpacked_bytes: int
    entries: int = 0
    arrived: list[Arrival] = field(default_factory=list)
    refused: list[tuple[str, errors.DermqError]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def drain(runtime: Runtime) -> None:
    """Unpack what waits, for a while; safe to run twice, and safe not to run."""
    runtime.wakeups.answer(Queue.INTAKE)
    deadline = time.monotonic() + runtime.settings.drain_seconds
    with Stop(runtime.settings) as stop:
        while not stop.requested:
            if time.monotonic() > deadline:
                runtime.wakeups.send(Queue.INTAKE)
                return
            try:
                task = db.transact(runtime.sessions, claim, runtime)
                if task is None:
                    return
                _work(runtime, task, stop)
            except errors.Transient as err:
                log.warning("pausing %.0f s: %s", _PAUSE_SECONDS, err)
                time.sleep(_PAUSE_SECONDS)


def claim(session: Session, runtime: Runtime) -> Task | None:
    """Lease the stored archive that has waited longest."""
    found = session.scalar(
        sa.select(Archive)
        .join(Batch, Batch.id == Archive.batch_id)
        .where(Archive.state == ArchiveState.STORED, Batch.cancelled_at.is_(None))
        .order_by(Archive.touched_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Archive)
    )
    if found is None or found.sha256 is None:
        return None
    token = uuid.uuid4()
    session.execute(
        sa.insert(Claim).values(token=token, worker=runtime.name, expires_at=db.now(runtime.settings.lease_seconds))
    )
    found.claim_token = token
    found.state = ArchiveState.UNPACKING
    return Task(token, found.id, found.batch_id, found.sha256, found.next_entry, found.unpacked_bytes)


def _work(runtime: Runtime, task: Task, stop: Stop) -> None:
    """Unpack one archive for a slice of time, then end it or put it back."""
    with Heartbeat(runtime.sessions, runtime.settings.lease_seconds) as heartbeat:
        heartbeat.hold(task.token)
        try:
            whole = _unpack(runtime, task, heartbeat, stop)
            db.transact(runtime.sessions, _end, task, whole=whole)
            if not whole:
                runtime.wakeups.send(Queue.INTAKE)
        except errors.Permanent as err:
            db.transact(runtime.sessions, _end, task, whole=True, error=err)
            whole = True
        except (claims.LeaseLost, errors.Conflict, errors.NotFound) as err:
            log.info("unpacking of archive %s ended: %s", task.archive_id, err)
            db.transact(runtime.sessions, _end, task, whole=False)
            return
        except errors.Transient:
            db.transact(runtime.sessions, _end, task, whole=False)
            raise
    if whole:
        db.transact(runtime.sessions, archives.drop_blob, task.batch_id, task.sha256, runtime.blobs)


def _unpack(runtime: Runtime, task: Task, heartbeat: Heartbeat, stop: Stop) -> bool:
    """Record page after page; says whether the archive is whole."""
    until = time.monotonic() + SLICE_SECONDS
    with _opened(runtime, task) as archive:
        infos = archive.infolist()
        page = Page(task.next_entry, task.unpacked_bytes)
        while page.next_entry < len(infos):
            if stop.requested or time.monotonic() > until:
                return False
            with contextlib.ExitStack() as files:
                page = _read_page(runtime, archive, infos, page, files, heartbeat)
                db.transact(runtime.sessions, _record, runtime, task, page)
            runtime.presence.progress()
            runtime.wakeups.send(Queue.CLASSIFY)
        return True


@contextlib.contextmanager
def _opened(runtime: Runtime, task: Task) -> Iterator[zipfile.ZipFile]:
    """Open the stored archive. Raises Permanent when it is no readable ZIP."""
    try:
        with runtime.blobs.open(task.batch_id, task.sha256) as file, _directory(file) as archive:
            yield archive
    except FileNotFoundError as err:
        runtime.blobs.probe()
        raise errors.Permanent("blob_missing", "The stored archive is gone; upload it again.") from err


def _directory(file: BinaryIO) -> zipfile.ZipFile:
    """Read the archive's list of entries."""
    try:
        check_directory(file)
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as err:
        raise errors.Permanent("bad_archive", f"The archive is no readable ZIP: {err}") from err


def check_directory(file: BinaryIO) -> None:
    """Raise Permanent when the archive's list of entries is too long to be read into memory."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if size > MAX_DIRECTORY_BYTES:
        raise errors.Permanent(
            "too_many_entries",
            f"The archive's list of entries has {size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are accepted.",
        )
    file.seek(0)


def _read_page(
    runtime: Runtime,
    archive: zipfile.ZipFile,
    infos: list[zipfile.ZipInfo],
    before: Page,
    files: contextlib.ExitStack,
    heartbeat: Heartbeat,
) -> Page:
    page = Page(before.next_entry, before.unpacked_bytes)
    until = time.monotonic() + PAGE_SECONDS
    while page.next_entry < len(infos) and page.entries < PAGE_ENTRIES and time.monotonic() < until:
        info = infos[page.next_entry]
        page.next_entry += 1
        page.entries += 1
        if is_skipped(info):
            page.skipped.append(info.filename)
            continue
        try:
            arrival = _arrival(runtime, archive, info, page, heartbeat)
            page.arrived.append(files.enter_context(arrival))
        except errors.Rejected as err:
            page.refused.append((info.filename, err))
        heartbeat.progress()
    return page


def is_skipped(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is a folder or something that an operating system left."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    return info.is_dir() or _SKIPPED_FOLDER in path.parts or path.name in _SKIPPED_FILES or path.name.startswith("._")


def _arrival(
    runtime: Runtime, archive: zipfile.ZipFile, info: zipfile.ZipInfo, page: Page, heartbeat: Heartbeat
) -> contextlib.AbstractContextManager[Arrival]:
    if info.flag_bits & 0x1:
        raise errors.Rejected("encrypted", "The entry is encrypted; only plain entries are accepted.")
    if info.compress_type not in _COMPRESSIONS:
        raise errors.Rejected(
            "unsupported_compression", "The entry is compressed in a way that is not accepted; stored and deflated are."
        )
    if info.file_size > runtime.settings.max_image_bytes:
        raise arrivals.too_large(runtime.settings)
    chunks = _chunks(archive, info, page, runtime.settings, heartbeat)
    return arrivals.taken(runtime.blobs, info.filename, chunks, runtime.settings)


def _chunks(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, page: Page, settings: Settings, heartbeat: Heartbeat
) -> Iterator[bytes]:
    """Unpack one entry in pieces. Raises Rejected when it is damaged or the archive unpacks to too much."""
    try:
        with archive.open(info) as entry:
            while chunk := entry.read(_CHUNK_BYTES):
                page.unpacked_bytes += len(chunk)
                if page.unpacked_bytes > settings.max_archive_unpacked_bytes:
                    raise errors.TooLarge(
                        "archive_bomb",
                        f"The archive unpacks to more than {settings.max_archive_unpacked_bytes:,} bytes, "
                        "the most that is accepted.",
                    )
                heartbeat.progress()
                yield chunk
    except OSError as err:
        raise errors.Transient("storage_failed", f"The stored archive cannot be read: {err}") from err
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error, OverflowError) as err:
        raise errors.Rejected("damaged_entry", f"The entry is damaged: {err}") from err


def _record(session: Session, runtime: Runtime, task: Task, page: Page) -> None:
    """Put a page into the batch and note where to go on. Raises LeaseLost when the archive is no longer ours."""
    archive = _locked(session, task)
    if archive.next_entry >= page.next_entry:
        return  # an earlier run of this transaction was committed after all
    verdicts = arrivals.receive(
        session,
        task.batch_id,
        page.arrived,
        runtime.blobs,
        runtime.settings,
        refused=page.refused,
        archive_id=task.archive_id,
    )
    archive.next_entry = page.next_entry
    archive.unpacked_bytes = page.unpacked_bytes
    archive.entries += page.entries
    archive.received += sum(verdict.error is None and not verdict.unchanged for verdict in verdicts)
    archive.unchanged += sum(verdict.unchanged for verdict in verdicts)
    archive.refused += len(page.refused) + sum(verdict.error is not None for verdict in verdicts)
    archive.skipped += len(page.skipped)
    archive.skipped_names = [*archive.skipped_names, *page.skipped][:_SKIPPED_NAMES_KEPT]
    archive.losses = 0
    archive.touched_at = datetime.now(UTC)


def _end(session: Session, task: Task, *, whole: bool, error: errors.Permanent | None = None) -> None:
    """Close the archive or put it back, and end the claim; does nothing when the lease was lost."""
    try:
        archive = _locked(session, task)
    except claims.LeaseLost:
        archive = None
    if archive is not None and whole:
        archives.close(session, archive, ArchiveState.FAILED if error else ArchiveState.DONE, error)
    elif archive is not None:
        archive.state = ArchiveState.STORED
        archive.claim_token = None
    session.flush()
    session.execute(sa.delete(Claim).where(Claim.token == task.token))


def _locked(session: Session, task: Task) -> Archive:
    held = session.scalar(sa.select(Claim.token).where(Claim.token == task.token).with_for_update())
    archive = archives.lock(session, task.archive_id)
    if held is None or archive is None or archive.claim_token != task.token:
        raise claims.LeaseLost(task.token)
    return archive
