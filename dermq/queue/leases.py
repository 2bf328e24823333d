"""Leases: what a worker holds of the queue, and for how long.

A lease is a row of its own, so that renewing it touches neither images nor archives. It runs out by the database's
clock. Whatever a worker records, it first locks the row of its lease: a lease that is gone was lost, and nothing may
be written.
"""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Claim

MOST_LOSSES = 3
"""Workers that may be lost over an image alone, or over an archive, before it fails as ``worker_lost``."""


class LeaseLost(errors.DermqError):
    """Raised when a lease is no longer ours: nothing of it may be written."""

    def __init__(self, token: uuid.UUID) -> None:
        super().__init__("lease_lost", f"The lease of claim {token} was lost; what it held is queued again.")


def begin(session: Session, worker: str, lease_seconds: float, *, bundle_id: int | None = None) -> uuid.UUID:
    """Begin a lease and return its token; ``bundle_id`` for a claim of images."""
    token = uuid.uuid4()
    expires_at = db.now(lease_seconds)
    session.execute(sa.insert(Claim).values(token=token, worker=worker, bundle_id=bundle_id, expires_at=expires_at))
    return token


def renew(session: Session, token: uuid.UUID, lease_seconds: float) -> bool:
    """Lengthen a lease and return whether it was still ours."""
    renewed = session.execute(
        sa.update(Claim).where(Claim.token == token).values(expires_at=db.now(lease_seconds)).returning(Claim.token)
    )
    return renewed.scalar_one_or_none() is not None


def lock(session: Session, token: uuid.UUID) -> None:
    """Lock the row of a lease. Raises LeaseLost when it is gone."""
    if not is_held(session, token):
        raise LeaseLost(token)


def is_held(session: Session, token: uuid.UUID, *where: sa.ColumnElement[bool]) -> bool:
    """Lock the row of a lease, if it is there and like ``where``, and return whether it is."""
    wanted = sa.select(Claim.token).where(Claim.token == token, *where).with_for_update()
    return session.scalar(wanted) is not None


def end(session: Session, token: uuid.UUID) -> None:
    """End a lease that holds nothing any more."""
    session.flush()  # what it held still points to it until then
    session.execute(sa.delete(Claim).where(Claim.token == token))
