"""Claims of images: take them in the fair order of labs, record their outcomes, give them back, expire them.

Each function is the work of one short transaction, which ``db.transact`` commits. Rows are locked in the order that
``dermq.transitions`` gives.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db, notes, transitions
from dermq.formats import Size
from dermq.lifecycle import ImageState
from dermq.models import Batch, Bundle, Claim, Image, Lab, Prediction, QueueRow
from dermq.notes import Note
from dermq.queue import archive_claims, fairness, leases
from dermq.queue.active import WAITING_BATCHES
from dermq.queue.leases import MOST_LOSSES
from dermq.queue.outcomes import Failed, Outcome
from dermq.transitions import LockedImage, Move

IMAGES_A_SECOND = 100
"""For how many images a lab is charged when one of its images takes a second to decode."""

# These conditions repeat the text of the partial indexes, without parameters. PostgreSQL cannot use such an index in a
# plan for any parameter, and SQLite does not see that ``suspect = 1`` is the same condition as ``suspect``.
_WAITS = Image.state == sa.literal(ImageState.QUEUED, Image.state.type, literal_execute=True)
_IS_SUSPECT: sa.ColumnElement[bool] = sa.literal_column("image.suspect")


@dataclass(frozen=True)
class ClaimedImage:
    """An image in a claim, with what a worker needs to find its file."""

    id: int
    batch_id: uuid.UUID
    sha256: str
    lab_id: int


@dataclass(frozen=True)
class Lease:
    """Images that one worker holds until the lease runs out."""

    token: uuid.UUID
    images: tuple[ClaimedImage, ...]
    alone: bool = False
    """Whether the claim is a single suspect."""


@dataclass(frozen=True)
class Claimant:
    """The worker that claims, and the bundle that it has loaded."""

    worker: str
    bundle_id: int
    lease_seconds: float


def list_waiting_bundles(session: Session) -> list[str]:
    """Return the SHA-256 of every bundle with waiting images, in the fair order of labs, then oldest batch first."""
    found = session.execute(
        sa.select(Bundle.sha256)
        .join(Batch, Batch.bundle_id == Bundle.id)
        .join(Lab, Lab.id == Batch.lab_id)
        .join(QueueRow, sa.true())
        .where(*WAITING_BATCHES)
        .order_by(sa.case((Lab.tag > QueueRow.served, Lab.tag), else_=QueueRow.served), Batch.id)
    )
    return list(dict.fromkeys(found.scalars()))


def take(
    session: Session,
    claimant: Claimant,
    most: int,
    *,
    without: Collection[int] = (),
    spent: Mapping[int, float] | None = None,
) -> Lease | None:
    """Lease up to ``most`` images in the fair order of labs, or return None when none waits. Suspects are left out.

    Labs ``without`` get no turn. Labs are first charged for the seconds of decoding that they have ``spent``, by id.
    """
    queue = session.scalars(sa.select(QueueRow).with_for_update()).one()
    charge(session, spent or {})
    contenders, labs = _list_contenders(session, claimant.bundle_id, queue.served)
    contenders = [contender for contender in contenders if contender.lab_id not in without]
    if not contenders:
        return None
    lab_of = {batch_id: one.lab_id for one in contenders for batch_id in (*one.urgent, *one.ordinary)}
    images: list[ClaimedImage] = []
    reached: dict[uuid.UUID, int] = defaultdict(int)  # a batch may have several turns in one claim

    def take_from(batch_id: uuid.UUID, wanted: int) -> int:
        found = session.execute(_select_next(batch_id, wanted, after=reached[batch_id])).all()
        for image_id, sha256, position in found:
            images.append(ClaimedImage(image_id, batch_id, sha256, lab_of[batch_id]))
            reached[batch_id] = position
        return len(found)

    queue.served = fairness.share(contenders, most, queue.served, take_from)
    for contender in contenders:
        if contender.taken:
            labs[contender.lab_id].tag = contender.start
            labs[contender.lab_id].urgent_turns = contender.urgent_turns
    return _begin_lease(session, claimant, tuple(images))


def _select_next(batch_id: uuid.UUID, wanted: int, *, after: int) -> sa.Select[int, str, int]:
    """Select id, SHA-256 and position of the waiting images of a batch behind a position, and lock them."""
    return (
        sa.select(Image.id, Image.sha256, Image.position)
        .where(Image.batch_id == batch_id, _WAITS, Image.suspect.is_(False), Image.position > after)
        .order_by(Image.position)
        .limit(wanted)
        .with_for_update(skip_locked=True)
    )


def take_suspect(session: Session, claimant: Claimant) -> Lease | None:
    """Lease one suspect alone, or return None when none waits.

    The caller must hold no other claim and claim nothing ahead, because a suspect may kill its process. The suspect
    comes from the lab with the least tag, which is charged for it as for any image.
    """
    suspects = (
        sa.select(Image.id, Image.batch_id, Image.sha256, Batch.lab_id)
        .join(Batch, Batch.id == Image.batch_id)
        .join(Lab, Lab.id == Batch.lab_id)
        .where(_IS_SUSPECT, _WAITS, Batch.bundle_id == claimant.bundle_id, *WAITING_BATCHES)
        .order_by(Lab.tag, Image.batch_id, Image.id)
        .limit(1)
    )
    if session.execute(suspects).first() is None:
        return None  # the usual case, which takes no lock
    queue = session.scalars(sa.select(QueueRow).with_for_update()).one()
    found = session.execute(suspects.with_for_update(skip_locked=True, of=Image)).first()
    if found is None:
        return None
    contenders, labs = _list_contenders(session, claimant.bundle_id, queue.served)
    lab = labs[found.lab_id]
    lab.tag = max(lab.tag, queue.served) + 1 / lab.weight
    # A lab that has only ordinary images may be before this one in the order, and must keep its place.
    queue.served = max(queue.served, min(contender.start for contender in contenders))
    return _begin_lease(
        session, claimant, (ClaimedImage(found.id, found.batch_id, found.sha256, found.lab_id),), alone=True
    )


def charge(session: Session, spent: Mapping[int, float]) -> None:
    """Charge labs for seconds of decoding, by lab id, as for ``IMAGES_A_SECOND`` images each. Locks the queue."""
    if not spent:
        return
    served = session.scalars(sa.select(QueueRow).with_for_update()).one().served
    for lab in session.scalars(sa.select(Lab).where(Lab.id.in_(spent)).order_by(Lab.id)):
        lab.tag = max(lab.tag, served) + spent[lab.id] * IMAGES_A_SECOND / lab.weight
    session.flush()


def record(session: Session, token: uuid.UUID, outcomes: Sequence[Outcome]) -> int:
    """Write the outcomes of claimed images and return for how many they were written.

    Outcomes of images that no longer run under this claim are dropped. Raises LeaseLost when the claim is gone.
    """
    leases.lock(session, token)
    by_id = {outcome.image_id: outcome for outcome in outcomes}
    owned = _lock_owned(session, token, by_id)
    done: dict[tuple[Size, tuple[Note, ...]], list[LockedImage]] = defaultdict(list)
    failed: dict[tuple[str, str], list[LockedImage]] = defaultdict(list)
    rows = []
    for image in owned:
        outcome = by_id[image.id]
        if isinstance(outcome, Failed):
            failed[outcome.code, outcome.detail].append(image)
        else:
            done[outcome.size, notes.merge(notes.from_json(image.notes), outcome.notes)].append(image)
            rows.append(outcome.row)
    if rows:
        session.execute(sa.insert(Prediction), rows)  # before the move, so that the batches are locked for less time
    moves = [_make_done(images, *read) for read, images in done.items()]
    moves += [_make_failure(images, *why) for why, images in failed.items()]
    transitions.move_images(session, moves)
    _end_if_empty(session, token)
    return len(owned)


def give_back(session: Session, token: uuid.UUID, *, lost: bool = False) -> None:
    """End a claim and queue the images and archives that it still holds again. Idempotent.

    Images of a cancelled batch are cancelled instead. With ``lost``, the worker is taken to have died: the images
    become suspects, and one that was a suspect already is charged a loss and fails at the third.
    """
    if not leases.is_held(session, token):
        return
    if lost:
        archive_claims.give_back_lost(session, token)
    owned = _lock_owned(session, token)
    found = transitions.lock_batches(session, {image.batch_id for image in owned})
    cancelled = {batch.id for batch in found if batch.cancelled_at is not None}
    returned: dict[tuple[ImageState, bool, int], list[LockedImage]] = defaultdict(list)
    for image in owned:
        returned[_decide_return(image, lost=lost, cancelled=image.batch_id in cancelled)].append(image)
    transitions.move_images(session, [_make_return(images, *target) for target, images in returned.items()])
    leases.end(session, token)


def list_expired(session: Session, most: int) -> list[uuid.UUID]:
    """Return the tokens of up to ``most`` claims whose lease has run out by the database's clock."""
    return list(
        session.scalars(sa.select(Claim.token).where(Claim.expires_at < db.now()).order_by(Claim.token).limit(most))
    )


def expire(session: Session, token: uuid.UUID) -> bool:
    """Give back a claim as lost, unless its lease was renewed or ended meanwhile; return whether it was given back."""
    if not leases.is_held(session, token, Claim.expires_at < db.now()):
        return False
    give_back(session, token, lost=True)
    return True


def _list_contenders(
    session: Session, bundle_id: int, served: float
) -> tuple[list[fairness.Contender], dict[int, Lab]]:
    """Return the labs with waiting batches of a bundle and their starts in the fair order, and their rows by id."""
    waiting = session.execute(
        sa.select(Batch.id, Batch.lab_id, Batch.urgent)
        .where(Batch.bundle_id == bundle_id, *WAITING_BATCHES)
        .order_by(Batch.id)
    ).all()
    # The row of the queue is locked, so no other transaction changes the tag of a lab meanwhile.
    labs = {lab.id: lab for lab in session.scalars(sa.select(Lab).where(Lab.id.in_({row.lab_id for row in waiting})))}
    contenders = {
        lab.id: fairness.Contender(lab.id, lab.weight, max(lab.tag, served), lab.urgent_turns) for lab in labs.values()
    }
    for batch_id, lab_id, urgent in waiting:
        contender = contenders[lab_id]
        (contender.urgent if urgent else contender.ordinary).append(batch_id)
    return list(contenders.values()), labs


def _begin_lease(
    session: Session,
    claimant: Claimant,
    images: tuple[ClaimedImage, ...],
    *,
    alone: bool = False,
) -> Lease | None:
    if not images:
        return None
    token = leases.begin(session, claimant.worker, claimant.lease_seconds, bundle_id=claimant.bundle_id)
    transitions.move_images(session, [Move(images, ImageState.QUEUED, ImageState.RUNNING, {"claim_token": token})])
    return Lease(token, images, alone)


def _lock_owned(session: Session, token: uuid.UUID, ids: Iterable[int] | None = None) -> Sequence[Image]:
    """Lock the images that run under a claim, in the order of their ids, and return them."""
    wanted = sa.select(Image).where(Image.claim_token == token, Image.state == ImageState.RUNNING)
    if ids is not None:
        wanted = wanted.where(Image.id.in_(list(ids)))
    return session.scalars(wanted.order_by(Image.id).with_for_update().execution_options(populate_existing=True)).all()


def _end_if_empty(session: Session, token: uuid.UUID) -> None:
    session.execute(sa.delete(Claim).where(Claim.token == token, ~sa.exists().where(Image.claim_token == token)))


def _decide_return(image: Image, *, lost: bool, cancelled: bool) -> tuple[ImageState, bool, int]:
    """Return the next state of an image that is given back, whether it is a suspect, and its losses while alone."""
    losses = image.solo_losses + (1 if lost and image.suspect else 0)
    if losses >= MOST_LOSSES and losses > image.solo_losses:
        return ImageState.FAILED, False, image.solo_losses
    if cancelled:
        return ImageState.CANCELLED, False, losses
    return ImageState.QUEUED, image.suspect or lost, losses


def _make_return(images: Sequence[LockedImage], target: ImageState, suspect: bool, losses: int) -> Move:
    if target is ImageState.FAILED:
        return _make_failure(
            images, "worker_lost", f"{MOST_LOSSES} workers ended while they worked on this image alone."
        )
    return Move(images, ImageState.RUNNING, target, {"suspect": suspect, "solo_losses": losses})


def _make_done(images: Sequence[LockedImage], size: Size, told: tuple[Note, ...]) -> Move:
    """Images of one size and with the same notes; those of a batch mostly are."""
    values = {"suspect": False, "width": size[0], "height": size[1], "notes": notes.as_json(told)}
    return Move(images, ImageState.RUNNING, ImageState.DONE, values)


def _make_failure(images: Sequence[LockedImage], code: str, detail: str) -> Move:
    error = {"suspect": False, "error_code": code, "error_detail": detail[:1000]}
    return Move(images, ImageState.RUNNING, ImageState.FAILED, error)
