"""Claims: images leased to one worker. Taken, renewed, recorded, given back, lost.

Each function is one short transaction's work; ``db.transact`` commits it. Locks in the order of ``dermq.batches``:
queue, claim, archive, images by id, batches by id.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import archives, batches, db, errors, progress
from dermq.lifecycle import ArchiveState, ImageState
from dermq.models import Archive, Batch, Bundle, Claim, Image, Lab, Prediction, QueueRow
from dermq.queue import fairness
from dermq.queue.outcomes import Failed, Outcome, Predicted

SOLO_LOSSES = 3
"""Leases an image may lose while claimed alone before it fails as ``worker_lost``."""

# In the words of the partial indexes, and no parameters: a plan for any parameter cannot use them, nor does SQLite see
# that ``suspect = 1`` says the same as ``suspect``.
_WAITS = Image.state == sa.literal(ImageState.QUEUED, Image.state.type, literal_execute=True)
_IS_SUSPECT: sa.ColumnElement[bool] = sa.literal_column("image.suspect")


class LeaseLost(errors.DermqError):
    """Raised when a claim is no longer ours: nothing of it may be written."""

    def __init__(self, token: uuid.UUID) -> None:
        super().__init__("lease_lost", f"The lease of claim {token} was lost; its images are queued again.")


@dataclass(frozen=True)
class ClaimedImage:
    """What a worker needs to know of an image."""

    id: int
    batch_id: uuid.UUID
    sha256: str


@dataclass(frozen=True)
class Lease:
    """Images that are ours until the lease runs out."""

    token: uuid.UUID
    images: tuple[ClaimedImage, ...]
    alone: bool = False
    """A suspect, claimed by itself."""


@dataclass(frozen=True)
class Claimant:
    """Who claims: a worker with the bundle it has loaded."""

    worker: str
    bundle_id: int
    lease_seconds: float


def waiting_bundles(session: Session) -> list[str]:
    """SHA-256 of every bundle that has waiting images: labs in their fair order, the oldest batch first."""
    found = session.execute(
        sa.select(Bundle.sha256)
        .join(Batch, Batch.bundle_id == Bundle.id)
        .join(Lab, Lab.id == Batch.lab_id)
        .join(QueueRow, sa.true())
        .where(*_active())
        .order_by(sa.case((Lab.tag > QueueRow.served, Lab.tag), else_=QueueRow.served), Batch.id)
    )
    return list(dict.fromkeys(found.scalars()))


def take(session: Session, claimant: Claimant, most: int) -> Lease | None:
    """Lease up to ``most`` images in the fair order of labs, suspects left out."""
    queue = session.scalars(sa.select(QueueRow).with_for_update()).one()
    contenders, labs = _contenders(session, claimant.bundle_id, queue.served)
    if not contenders:
        return None
    images: list[ClaimedImage] = []
    reached: dict[uuid.UUID, int] = defaultdict(int)  # a batch may have several turns in one claim

    def take_from(batch_id: uuid.UUID, wanted: int) -> int:
        found = session.execute(
            sa.select(Image.id, Image.batch_id, Image.sha256, Image.position)
            .where(
                Image.batch_id == batch_id,
                _WAITS,
                Image.suspect.is_(False),
                Image.position > reached[batch_id],
            )
            .order_by(Image.position)
            .limit(wanted)
            .with_for_update(skip_locked=True)
        ).all()
        for image_id, _, sha256, position in found:
            images.append(ClaimedImage(image_id, batch_id, sha256))
            reached[batch_id] = position
        return len(found)

    queue.served = fairness.share(contenders, most, queue.served, take_from)
    for contender in contenders:
        if contender.taken:
            labs[contender.lab_id].tag = contender.start
            labs[contender.lab_id].urgent_turns = contender.urgent_turns
    return _lease(session, claimant, tuple(images))


def take_suspect(session: Session, claimant: Claimant) -> Lease | None:
    """Lease one suspect by itself; only for a process that holds nothing else and claims nothing ahead.

    Its lab is the one with the least tag among those with suspects, and is charged for it as for any image.
    """
    suspects = (
        sa.select(Image.id, Image.batch_id, Image.sha256, Batch.lab_id)
        .join(Batch, Batch.id == Image.batch_id)
        .join(Lab, Lab.id == Batch.lab_id)
        .where(_IS_SUSPECT, _WAITS, Batch.bundle_id == claimant.bundle_id, *_active())
        .order_by(Lab.tag, Image.batch_id, Image.id)
        .limit(1)
    )
    if session.execute(suspects).first() is None:
        return None  # as nearly always, and without a lock
    queue = session.scalars(sa.select(QueueRow).with_for_update()).one()
    found = session.execute(suspects.with_for_update(skip_locked=True, of=Image)).first()
    if found is None:
        return None
    contenders, labs = _contenders(session, claimant.bundle_id, queue.served)
    lab = labs[found.lab_id]
    lab.tag = max(lab.tag, queue.served) + 1 / lab.weight
    # Another lab may be before this one, with images that are not suspect: it must not lose its place.
    queue.served = max(queue.served, min(contender.start for contender in contenders))
    return _lease(session, claimant, (ClaimedImage(found.id, found.batch_id, found.sha256),), alone=True)


def renew(session: Session, token: uuid.UUID, lease_seconds: float) -> bool:
    """Lengthen a lease by the database's clock and say whether it was still ours."""
    renewed = session.execute(
        sa.update(Claim).where(Claim.token == token).values(expires_at=db.now(lease_seconds)).returning(Claim.token)
    )
    return renewed.scalar_one_or_none() is not None


def record(session: Session, token: uuid.UUID, outcomes: Sequence[Outcome]) -> int:
    """Record what became of claimed images and say how many were still ours. Raises LeaseLost.

    Only images that are still running under this claim are moved, and only for those is a prediction written.
    """
    _lock(session, token)
    by_id = {outcome.image_id: outcome for outcome in outcomes}
    owned = _owned(session, token, by_id)
    done = [by_id[image.id] for image in owned if isinstance(by_id[image.id], Predicted)]
    failed = [by_id[image.id] for image in owned if isinstance(by_id[image.id], Failed)]
    if done:
        session.execute(
            sa.update(Image)
            .where(Image.id.in_([outcome.image_id for outcome in done]), Image.state == ImageState.RUNNING)
            .values(state=ImageState.DONE, claim_token=None, suspect=False)
        )
        session.execute(sa.insert(Prediction), [outcome.row for outcome in done if isinstance(outcome, Predicted)])
    for outcome in failed:
        if isinstance(outcome, Failed):
            session.execute(_failing(outcome.image_id, outcome.code, outcome.detail))
    _count(session, owned, {outcome.image_id: ImageState.FAILED for outcome in failed}, default=ImageState.DONE)
    _end_if_empty(session, token)
    return len(owned)


def give_back(session: Session, token: uuid.UUID, *, lost: bool = False) -> None:
    """Queue what is left of a claim again and end it; safe to do twice.

    ``lost`` when the worker died over it: its images become suspects, and one that was alone is charged a loss.
    """
    if session.scalar(sa.select(Claim.token).where(Claim.token == token).with_for_update()) is None:
        return
    if lost:
        _give_back_archives(session, token)
    owned = _owned(session, token)
    found = batches.lock_all(session, {image.batch_id for image in owned})
    cancelled = {batch.id for batch in found if batch.cancelled_at is not None}
    moves = {image.id: _move(image, lost=lost, cancelled=image.batch_id in cancelled) for image in owned}
    for image in owned:
        session.execute(_returning(image, moves[image.id], lost=lost))
    _count(session, owned, moves, default=ImageState.QUEUED)
    session.execute(sa.delete(Claim).where(Claim.token == token))


def expired(session: Session, most: int) -> list[uuid.UUID]:
    """Claims whose lease has run out by the database's clock."""
    return list(
        session.scalars(sa.select(Claim.token).where(Claim.expires_at < db.now()).order_by(Claim.token).limit(most))
    )


def expire(session: Session, token: uuid.UUID) -> bool:
    """Give back a claim if its lease is still run out; says whether it was."""
    still = sa.select(Claim.token).where(Claim.token == token, Claim.expires_at < db.now()).with_for_update()
    if session.scalar(still) is None:
        return False
    give_back(session, token, lost=True)
    return True


def _active() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Batch.finished_at.is_(None),
        Batch.cancelled_at.is_(None),
        Batch.deleted_at.is_(None),
        Batch.queued > 0,
    )


def _contenders(session: Session, bundle_id: int, served: float) -> tuple[list[fairness.Contender], dict[int, Lab]]:
    """The labs with waiting batches of a bundle, each with its place in the fair order."""
    waiting = session.execute(
        sa.select(Batch.id, Batch.lab_id, Batch.urgent)
        .where(Batch.bundle_id == bundle_id, *_active())
        .order_by(Batch.id)
    ).all()
    # The queue's row is locked, so nobody else changes a lab's tag meanwhile.
    labs = {lab.id: lab for lab in session.scalars(sa.select(Lab).where(Lab.id.in_({row.lab_id for row in waiting})))}
    contenders = {
        lab.id: fairness.Contender(lab.id, lab.weight, max(lab.tag, served), lab.urgent_turns) for lab in labs.values()
    }
    for batch_id, lab_id, urgent in waiting:
        contender = contenders[lab_id]
        (contender.urgent if urgent else contender.ordinary).append(batch_id)
    return list(contenders.values()), labs


def _lease(
    session: Session,
    claimant: Claimant,
    images: tuple[ClaimedImage, ...],
    *,
    alone: bool = False,
) -> Lease | None:
    if not images:
        return None
    token = uuid.uuid4()
    session.execute(
        sa.insert(Claim).values(
            token=token,
            worker=claimant.worker,
            bundle_id=claimant.bundle_id,
            expires_at=db.now(claimant.lease_seconds),
        )
    )
    session.execute(
        sa.update(Image)
        .where(Image.id.in_([image.id for image in images]), Image.state == ImageState.QUEUED)
        .values(state=ImageState.RUNNING, claim_token=token)
    )
    moved = Counter(image.batch_id for image in images)
    for batch in batches.lock_all(session, moved):
        batch.queued -= moved[batch.id]
        batch.running += moved[batch.id]
        if batch.measured_at is None:
            progress.measure(batch, datetime.now(UTC))
        batches.changed(batch)
    return Lease(token, images, alone)


def _lock(session: Session, token: uuid.UUID) -> None:
    if session.scalar(sa.select(Claim.token).where(Claim.token == token).with_for_update()) is None:
        raise LeaseLost(token)


def _owned(session: Session, token: uuid.UUID, ids: Iterable[int] | None = None) -> Sequence[Image]:
    """Lock the images that run under a claim, in the order of their ids."""
    wanted = sa.select(Image).where(Image.claim_token == token, Image.state == ImageState.RUNNING)
    if ids is not None:
        wanted = wanted.where(Image.id.in_(list(ids)))
    return session.scalars(wanted.order_by(Image.id).with_for_update().execution_options(populate_existing=True)).all()


def _count(session: Session, owned: Sequence[Image], moves: dict[int, ImageState], *, default: ImageState) -> None:
    """Move the counts of the batches that running images left."""
    moved: dict[uuid.UUID, Counter[ImageState]] = defaultdict(Counter)
    for image in owned:
        moved[image.batch_id][moves.get(image.id, default)] += 1
    for batch in batches.lock_all(session, moved):
        for state, count in moved[batch.id].items():
            setattr(batch, state.value, getattr(batch, state.value) + count)
            batch.running -= count
        progress.measure(batch, datetime.now(UTC))
        batches.settle(batch)
        batches.changed(batch)


def _end_if_empty(session: Session, token: uuid.UUID) -> None:
    session.execute(sa.delete(Claim).where(Claim.token == token, ~sa.exists().where(Image.claim_token == token)))


def _move(image: Image, *, lost: bool, cancelled: bool) -> ImageState:
    if lost and image.suspect and image.solo_losses + 1 >= SOLO_LOSSES:
        return ImageState.FAILED
    return ImageState.CANCELLED if cancelled else ImageState.QUEUED


def _returning(image: Image, target: ImageState, *, lost: bool) -> sa.Update:
    if target is ImageState.FAILED:
        return _failing(
            image.id, "worker_lost", f"{SOLO_LOSSES} workers were lost while they worked on this image alone."
        )
    charged = image.solo_losses + (1 if lost and image.suspect else 0)
    return (
        sa.update(Image)
        .where(Image.id == image.id, Image.state == ImageState.RUNNING)
        .values(
            state=target,
            claim_token=None,
            suspect=(image.suspect or lost) and target is ImageState.QUEUED,
            solo_losses=charged,
        )
    )


def _failing(image_id: int, code: str, detail: str) -> sa.Update:
    return (
        sa.update(Image)
        .where(Image.id == image_id, Image.state == ImageState.RUNNING)
        .values(
            state=ImageState.FAILED,
            claim_token=None,
            suspect=False,
            error_code=code,
            error_detail=detail[:1000],
        )
    )


def _give_back_archives(session: Session, token: uuid.UUID) -> None:
    """Let another unpacker go on where a lost one stopped; one that is lost again and again fails its archive."""
    for archive in session.scalars(
        sa.select(Archive).where(Archive.claim_token == token).order_by(Archive.id).with_for_update()
    ):
        archive.losses += 1
        if archive.losses >= SOLO_LOSSES:
            lost = errors.Permanent("worker_lost", f"{SOLO_LOSSES} workers were lost while they unpacked this archive.")
            archives.close(session, archive, ArchiveState.FAILED, lost)
        else:
            archive.claim_token = None
            archive.state = ArchiveState.STORED
