"""Leases: for how long a worker holds a claim.

A lease is a row of its own, so that a renewal updates neither images nor archives. It runs out by the database's clock.
Before a worker records anything, it locks the row of its lease. If the row is gone, the lease was lost, and the worker
must write nothing.
"""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import db, errors
from dermq.models import Claim

MOST_LOSSES = 3
"""A suspect image or an archive fails as ``worker_lost`` at this number of lost leases."""


class LeaseLost(errors.DermqError):
    """Raised when a lease was lost: its former holder must write nothing."""

    def __init__(self, token: uuid.UUID) -> None:
        super().__init__("lease_lost", f"The lease of claim {token} was lost; its images or archive are queued again.")


def begin(session: Session, worker: str, lease_seconds: float, *, bundle_id: int | None = None) -> uuid.UUID:
    """Begin a lease and return its token. A claim of images gives a ``bundle_id``, a claim of an archive none."""
    token = uuid.uuid4()
    expires_at = db.now(lease_seconds)
    session.execute(sa.insert(Claim).values(token=token, worker=worker, bundle_id=bundle_id, expires_at=expires_at))
    return token


def renew(session: Session, token: uuid.UUID, lease_seconds: float) -> bool:
    """Let a lease run out ``lease_seconds`` from now, and return whether it still existed."""
    renewed = session.execute(
        sa.update(Claim).where(Claim.token == token).values(expires_at=db.now(lease_seconds)).returning(Claim.token)
    )
    return renewed.scalar_one_or_none() is not None


def lock(session: Session, token: uuid.UUID) -> None:
    """Lock the row of a lease. Raises LeaseLost when it is gone."""
    if not is_held(session, token):
        raise LeaseLost(token)


def is_held(session: Session, token: uuid.UUID, *where: sa.ColumnElement[bool]) -> bool:
    """Lock the row of a lease, if it exists and ``where`` holds for it, and return whether it was locked."""
    wanted = sa.select(Claim.token).where(Claim.token == token, *where).with_for_update()
    return session.scalar(wanted) is not None


def end(session: Session, token: uuid.UUID) -> None:
    """Delete a lease that holds nothing any more."""
    session.flush()  # writes the rows that no longer refer to this lease
    session.execute(sa.delete(Claim).where(Claim.token == token))
