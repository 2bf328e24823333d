"""Quotas: what a lab may use at one time, so that no lab fills the queue or the disk of all.

Each has a value in the settings, which a lab's own value replaces. Images that wait and open batches are counted from
the few batches that have not finished; the bytes that a lab keeps are a sum that ``dermq.transitions`` moves. When
requests come at the same moment, a quota may be passed by what these bring.
"""

import uuid
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import errors
from dermq.models import Batch, Lab, LabUse
from dermq.settings import Settings

WAITING_RETRY_SECONDS = 30
"""When to try again if too many images wait: a classify worker has taken some by then."""
_DELETE = "Delete batches that you no longer need to make room."
_UNFINISHED = (Batch.finished_at.is_(None), Batch.deleted_at.is_(None))


@dataclass(frozen=True)
class Quotas:
    """The limits of a lab."""

    waiting_images: int
    kept_bytes: int
    open_batches: int
    requests_per_minute: int

    @classmethod
    def of(cls, lab: Lab, settings: Settings) -> "Quotas":
        """Return a lab's own quotas, and those of the installation where it has none."""
        return cls(
            lab.max_waiting_images or settings.lab_waiting_images,
            lab.max_kept_bytes or settings.lab_kept_bytes,
            lab.max_open_batches or settings.lab_open_batches,
            lab.max_requests_per_minute or settings.lab_requests_per_minute,
        )


@dataclass(frozen=True)
class Use:
    """What a lab uses now."""

    waiting_images: int
    kept_bytes: int
    open_batches: int


def find(session: Session, lab_id: int, settings: Settings) -> Quotas:
    """Return the quotas of a lab."""
    return Quotas.of(session.get_one(Lab, lab_id), settings)


def measure(session: Session, lab_id: int) -> Use:
    """Return what a lab uses now."""
    return Use(_count_waiting(session, lab_id), _read_kept(session, lab_id), _count_open(session, lab_id))


def check_waiting(session: Session, lab_id: int, settings: Settings, *, images: int) -> None:
    """Raise TooMany when so many more images of the lab may not wait now."""
    most, waiting = find(session, lab_id, settings).waiting_images, _count_waiting(session, lab_id)
    if images and waiting + images > most:
        raise errors.TooMany(
            "quota_waiting_images",
            f"Your lab has {_count(waiting)} waiting to be classified, and {images:,} more would be over its quota of "
            f"{most:,}. Nothing of this request was kept; send it again in {WAITING_RETRY_SECONDS} s.",
            WAITING_RETRY_SECONDS,
        )


def check_kept(session: Session, lab_id: int, settings: Settings, *, kept_bytes: int) -> None:
    """Raise OutOfSpace when the lab would keep so many bytes, which are more than it may."""
    most = find(session, lab_id, settings).kept_bytes
    if kept_bytes > most:
        raise errors.OutOfSpace(
            "quota_kept_bytes",
            f"With this request, the files of your lab would have {kept_bytes:,} bytes, and its quota is {most:,}. "
            f"Nothing of it was kept. {_DELETE}",
        )


def check_archive(session: Session, lab_id: int, settings: Settings, *, archive_bytes: int) -> None:
    """Raise OutOfSpace when there is no room for an archive of this size, before it is received."""
    check_kept(session, lab_id, settings, kept_bytes=_read_kept(session, lab_id) + archive_bytes)


def check_open_batches(session: Session, lab_id: int, settings: Settings) -> None:
    """Raise Forbidden when the lab has more open batches than it may, one that was just created included."""
    most = find(session, lab_id, settings).open_batches
    if _count_open(session, lab_id) > most:
        raise errors.Forbidden(
            "quota_open_batches",
            f"Your lab has as many open batches as its quota allows: {most:,}. Finish the upload (seal) of one, or "
            "cancel one, then try again. A batch that is idle is sealed automatically after "
            f"{settings.idle_seal_seconds // 60} minutes.",
        )


def check_unpacking(session: Session, batch_id: uuid.UUID, settings: Settings) -> None:
    """Raise Transient while the lab of a batch has no room for entries of an archive, which then waits.

    The room may be small: a page of entries is unpacked as a whole and may pass the quota by a part of itself.
    """
    lab_id = session.scalar(sa.select(Batch.lab_id).where(Batch.id == batch_id))
    if lab_id is None:
        return  # the batch was deleted, which the transaction of the page finds out
    limits, use = find(session, lab_id, settings), measure(session, lab_id)
    if use.waiting_images >= limits.waiting_images:
        raise errors.Transient(
            "quota_waiting_images",
            f"Your lab has {_count(use.waiting_images)} waiting to be classified, and its quota is "
            f"{limits.waiting_images:,}. Unpacking goes on by itself when some of them are classified.",
        )
    if use.kept_bytes >= limits.kept_bytes:
        raise errors.OutOfSpace(
            "quota_kept_bytes",
            f"The files of your lab have {use.kept_bytes:,} bytes, and its quota is {limits.kept_bytes:,}. Unpacking "
            f"goes on by itself when there is room. {_DELETE}",
        )


def _count(images: int) -> str:
    return "1 image" if images == 1 else f"{images:,} images"


def _count_waiting(session: Session, lab_id: int) -> int:
    counted = sa.select(sa.func.sum(Batch.queued)).where(Batch.lab_id == lab_id, *_UNFINISHED)
    return session.scalar(counted) or 0


def _count_open(session: Session, lab_id: int) -> int:
    is_open = (Batch.lab_id == lab_id, Batch.sealed_at.is_(None), *_UNFINISHED)
    return session.scalar(sa.select(sa.func.count()).select_from(Batch).where(*is_open)) or 0


def _read_kept(session: Session, lab_id: int) -> int:
    return session.scalar(sa.select(LabUse.kept_bytes).where(LabUse.lab_id == lab_id)) or 0
