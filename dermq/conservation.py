"""The conservation check: every image of a batch is counted once, predicted once, and has its file.

The check locks nothing and reads a page of images at a time, while uploads, workers and deletions go on. So it lists
the files after it has read the rows that need them, and it reports only what two looks in a row have found. The reaper
checks a few batches in each round; an operator checks all of them with ``flask --app web.app audit``.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db
from dermq.lifecycle import OPEN_ARCHIVE, ArchiveState, ImageState
from dermq.models import Archive, Batch, Claim, Image, Lab, LabUse, Prediction, Refusal
from dermq.storage import THUMBNAIL, BlobStore

_PAGE_IMAGES = 1_000
_STALE_SECONDS = 600
"""A lease that ran out this long ago is a breach, because the reaper looks for such leases every few seconds."""
_SWEEP_SECONDS = 600
"""A cancelled batch may stay unfinished for this long, until ``batches.sweep`` runs or the reaper repeats it."""
_SHOWN = 5
"""Most images or archives that one finding names; the rest are counted."""


class Breach(StrEnum):
    """What can be wrong with a batch."""

    COUNTS_DIFFER = "counts_differ"
    FINISHED_EARLY = "finished_early"
    NOT_SETTLED = "not_settled"
    PREDICTION_MISSING = "prediction_missing"
    PREDICTION_DOUBLED = "prediction_doubled"
    PREDICTION_UNDUE = "prediction_undue"
    CLAIM_MISSING = "claim_missing"
    CLAIM_LEFT = "claim_left"
    CLAIM_STALE = "claim_stale"
    FILE_MISSING = "file_missing"


_EXPECTED = {
    Breach.COUNTS_DIFFER: "The counts of a batch equal the numbers of its rows",
    Breach.FINISHED_EARLY: "A finished batch has nothing left to do",
    Breach.NOT_SETTLED: "A sealed batch with nothing left to do is finished",
    Breach.PREDICTION_MISSING: "A done image has a prediction by its batch's bundle",
    Breach.PREDICTION_DOUBLED: "An image has at most one prediction by each bundle",
    Breach.PREDICTION_UNDUE: "Only a done image has a prediction",
    Breach.CLAIM_MISSING: "Every image or archive that is being worked on has a claim",
    Breach.CLAIM_LEFT: "Only an image or archive that is being worked on has a claim",
    Breach.CLAIM_STALE: f"The reaper has taken back every lease that ran out {_STALE_SECONDS // 60} minutes ago",
    Breach.FILE_MISSING: "The file of every image and of every open archive is in the store",
}


@dataclass(frozen=True)
class Finding:
    """A breach, and a sentence with what was expected and what was found."""

    breach: Breach
    detail: str


@dataclass(frozen=True)
class Audit:
    """The result of checking one batch."""

    images: int
    findings: tuple[Finding, ...]
    unneeded: frozenset[str]
    """Files that no row needs: orphans, or files whose rows are not written yet."""


@dataclass(frozen=True)
class _Sign:
    """One breach in one subject, such as ``image 3``. ``found`` is details, which two looks need not share."""

    breach: Breach
    subject: str
    found: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.subject} ({self.found})" if self.found else self.subject


@dataclass
class _Look:
    """The result of one look at a batch; empty when the batch is deleted or marked as deleted."""

    images: int = 0
    last_position: int = 0
    signs: list[_Sign] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    """For the SHA-256 of each file that a row needs: the image or archive of that row."""
    unneeded: frozenset[str] = frozenset()


def list_next_batches(session: Session, after: uuid.UUID, most: int) -> list[uuid.UUID]:
    """Return up to ``most`` ids of batches that come after the id ``after``; deleted batches are left out."""
    wanted = sa.select(Batch.id).where(Batch.id > after, Batch.deleted_at.is_(None)).order_by(Batch.id).limit(most)
    return list(session.scalars(wanted))


def audit(sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID) -> Audit:
    """Find every breach in a batch. Raises Transient when the blob store is not available."""
    look = _look(sessions, blobs, batch_id)
    signs = look.signs
    if signs:
        before = set(signs)
        look = _look(sessions, blobs, batch_id)
        signs = [sign for sign in look.signs if sign in before]
    return Audit(look.images, tuple(_make_findings(signs)), look.unneeded)


def find_stale_claims(session: Session) -> list[Finding]:
    """Return a finding for claims that hold nothing and whose lease ran out long ago.

    Such claims belong to no batch, so ``audit`` does not see them.
    """
    held = sa.exists().where(Image.claim_token == Claim.token) | sa.exists().where(Archive.claim_token == Claim.token)
    found = session.scalars(sa.select(Claim.token).where(_is_stale(), ~held).order_by(Claim.token))
    return list(_make_findings([_Sign(Breach.CLAIM_STALE, f"claim {token}") for token in found]))


def find_wrong_uses(session: Session) -> list[Finding]:
    """Return a finding for labs whose sum of kept bytes is not that of their batches."""
    summed = sa.func.coalesce(sa.func.sum(Batch.kept_bytes), 0)
    per_lab = (
        sa.select(Lab.name, LabUse.kept_bytes, summed)
        .outerjoin(LabUse, LabUse.lab_id == Lab.id)
        .outerjoin(Batch, Batch.lab_id == Lab.id)
        .group_by(Lab.id, Lab.name, LabUse.kept_bytes)
        .order_by(Lab.id)
    )
    wrong = [
        _Sign(Breach.COUNTS_DIFFER, f"lab {name!r}", f"kept_bytes: {counted} counted, {found} in batches")
        for name, counted, found in session.execute(per_lab)
        if counted != found
    ]
    return list(_make_findings(wrong))


def mark(session: Session, batch_id: uuid.UUID, *, breached: bool) -> None:
    """Set ``breached_at`` when a breach is first found, and clear it when none is found any more.

    The version of the batch stays, because its status does not show the breach.
    """
    news = Batch.breached_at.is_(None) if breached else Batch.breached_at.is_not(None)
    since = datetime.now(UTC) if breached else None
    session.execute(sa.update(Batch).where(Batch.id == batch_id, news).values(breached_at=since))


def list_needed(session: Session, batch_id: uuid.UUID, names: Iterable[str]) -> set[str]:
    """Return those of ``names``, which are names of files, that a row of the batch needs."""
    by_hash = {name: name.removesuffix(THUMBNAIL) for name in names}
    images = sa.select(Image.sha256).where(Image.batch_id == batch_id, Image.sha256.in_(by_hash.values()))
    waiting = sa.select(Archive.sha256).where(Archive.batch_id == batch_id, Archive.state.in_(OPEN_ARCHIVE))
    found = set(session.scalars(images)) | set(session.scalars(waiting))
    return {name for name, sha256 in by_hash.items() if sha256 in found}


def _look(sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID) -> _Look:
    look = db.read(sessions, _look_at_batch, batch_id)
    for after in range(0, look.last_position, _PAGE_IMAGES):
        page = db.read(sessions, _read_page, batch_id, after)
        look.needs |= {row.sha256: f"image {row.position}" for row in page}
        for position, rows in groupby(page, key=lambda row: row.position):
            look.signs += _find_image_signs(f"image {position}", list(rows))
    names = blobs.list(batch_id)
    missing = look.needs.keys() - set(names)
    if missing:
        blobs.probe()
    look.signs += [_Sign(Breach.FILE_MISSING, who) for sha256, who in look.needs.items() if sha256 in missing]
    look.unneeded = frozenset(name for name in names if name.removesuffix(THUMBNAIL) not in look.needs)
    return look


def _look_at_batch(session: Session, batch_id: uuid.UUID) -> _Look:
    """Compare the row of a batch with the rows that belong to it, in one snapshot."""
    batch = session.get(Batch, batch_id)
    if batch is None or batch.deleted_at is not None:
        return _Look()
    states = sa.select(Image.state, sa.func.count()).where(Image.batch_id == batch_id).group_by(Image.state)
    images = dict(session.execute(states).all())
    archives = session.execute(
        sa.select(Archive.id, Archive.state, Archive.sha256, Archive.bytes, Claim.token, _is_stale().label("is_stale"))
        .outerjoin(Claim, Claim.token == Archive.claim_token)
        .where(Archive.batch_id == batch_id)
    ).all()
    waiting = [archive for archive in archives if archive.state in OPEN_ARCHIVE]
    rows = {state.value: images.get(state, 0) for state in ImageState}
    rows |= {
        "received": sum(images.values()),
        "archives_open": len(waiting),
        "refused": _count_refusals(session, batch_id),
    }
    last = session.scalar(sa.select(sa.func.max(Image.position)).where(Image.batch_id == batch_id))
    rows["kept_bytes"] = _sum_image_bytes(session, batch_id) + sum(one.bytes for one in waiting if one.sha256)
    look = _Look(rows["received"], last or 0)
    look.needs = {archive.sha256: f"archive {archive.id}" for archive in waiting if archive.sha256}
    look.signs += _compare_counts(batch, rows)
    look.signs += _check_settling(batch, rows)
    for archive in archives:
        working = archive.state == ArchiveState.UNPACKING
        look.signs += _check_claiming(f"archive {archive.id}", archive.token, archive.is_stale, working=working)
    return look


def _sum_image_bytes(session: Session, batch_id: uuid.UUID) -> int:
    """Return the bytes of the files of images; equal files are stored once."""
    files = sa.select(Image.sha256, Image.bytes).where(Image.batch_id == batch_id).distinct().subquery()
    return int(session.scalar(sa.select(sa.func.sum(files.c.bytes))) or 0)


def _count_refusals(session: Session, batch_id: uuid.UUID) -> int:
    counted = sa.select(sa.func.count()).select_from(Refusal).where(Refusal.batch_id == batch_id)
    return session.scalar(counted) or 0


def _compare_counts(batch: Batch, rows: dict[str, int]) -> Iterator[_Sign]:
    for name, count in rows.items():
        if (counted := getattr(batch, name)) != count:
            yield _Sign(Breach.COUNTS_DIFFER, name, f"{counted} counted, {count} in rows")


def _check_settling(batch: Batch, rows: dict[str, int]) -> Iterator[_Sign]:
    left = {name: rows[name] for name in ("queued", "running", "archives_open") if rows[name]}
    if batch.finished_at is not None:
        yield from (_Sign(Breach.FINISHED_EARLY, name, str(count)) for name, count in left.items())
    elif batch.sealed_at is not None and not left and not _may_be_swept(batch):
        yield _Sign(Breach.NOT_SETTLED, "this batch")


def _may_be_swept(batch: Batch) -> bool:
    since = batch.cancelled_at
    return since is not None and since > datetime.now(UTC) - timedelta(seconds=_SWEEP_SECONDS)


def _read_page(session: Session, batch_id: uuid.UUID, after: int) -> Sequence[Any]:
    """Return a page of images with their claims: a row for each prediction, or one for an image that has none."""
    return session.execute(
        sa.select(
            Image.position,
            Image.sha256,
            Image.state,
            Claim.token,
            _is_stale().label("is_stale"),
            Prediction.bundle_id,
            Batch.bundle_id.label("wanted"),
        )
        .join(Batch, Batch.id == Image.batch_id)
        .outerjoin(Claim, Claim.token == Image.claim_token)
        .outerjoin(Prediction, Prediction.image_id == Image.id)
        .where(Image.batch_id == batch_id, Image.position.between(after + 1, after + _PAGE_IMAGES))
        .order_by(Image.position)
    ).all()


def _find_image_signs(subject: str, rows: Sequence[Any]) -> Iterator[_Sign]:
    image = rows[0]
    predictions = Counter(row.bundle_id for row in rows if row.bundle_id is not None)
    if image.state == ImageState.DONE and not predictions[image.wanted]:
        yield _Sign(Breach.PREDICTION_MISSING, subject)
    if image.state != ImageState.DONE and predictions:
        yield _Sign(Breach.PREDICTION_UNDUE, subject, image.state.value)
    if max(predictions.values(), default=0) > 1:
        yield _Sign(Breach.PREDICTION_DOUBLED, subject, str(max(predictions.values())))
    yield from _check_claiming(subject, image.token, image.is_stale, working=image.state == ImageState.RUNNING)


def _check_claiming(subject: str, token: uuid.UUID | None, is_stale: bool | None, *, working: bool) -> Iterator[_Sign]:
    if working and token is None:
        yield _Sign(Breach.CLAIM_MISSING, subject)
    if not working and token is not None:
        yield _Sign(Breach.CLAIM_LEFT, subject)
    if is_stale:
        yield _Sign(Breach.CLAIM_STALE, subject)


def _is_stale() -> sa.ColumnElement[bool]:
    return Claim.expires_at < db.now(-_STALE_SECONDS)


def _make_findings(signs: Sequence[_Sign]) -> Iterator[Finding]:
    for breach in Breach:
        shown = [str(sign) for sign in signs if sign.breach is breach]
        if shown:
            more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
            yield Finding(breach, f"{_EXPECTED[breach]}; this does not hold for: {', '.join(shown[:_SHOWN])}{more}.")
