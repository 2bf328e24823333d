"""Labs, which submit batches, and the share of the queue that each gets."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import errors, events
from dermq.models import Lab
from dermq.principals import OPERATOR


def add(session: Session, name: str, *, weight: float = 1.0, max_waiting_images: int | None = None) -> Lab:
    """Add a lab. Raises Rejected for a weight that is not positive, Conflict when a lab has this name already."""
    if not weight > 0:
        raise errors.Rejected("bad_weight", f"The weight is {weight}; it must be greater than 0.")
    if find(session, name) is not None:
        raise errors.Conflict("lab_exists", f"A lab called {name!r} exists already.")
    lab = Lab(name=name, weight=weight, max_waiting_images=max_waiting_images, created_at=datetime.now(UTC))
    session.add(lab)
    session.flush()
    events.add(session, "lab added", by=OPERATOR, lab_id=lab.id, at=lab.created_at, name=name)
    return lab


def disable(session: Session, lab: Lab) -> None:
    """Keep a lab out: each of its calls and pages is refused, and its waiting work is not claimed. Idempotent.

    What workers hold is finished and recorded. Nothing is deleted.
    """
    if lab.disabled_at is None:
        lab.disabled_at = datetime.now(UTC)
        events.add(session, "lab disabled", by=OPERATOR, lab_id=lab.id, at=lab.disabled_at)


def enable(session: Session, lab: Lab) -> None:
    """Let a disabled lab in again; its waiting work goes on. Idempotent."""
    if lab.disabled_at is not None:
        lab.disabled_at = None
        events.add(session, "lab enabled", by=OPERATOR, lab_id=lab.id)


def find(session: Session, name: str) -> Lab | None:
    """Return the lab called ``name``, or None."""
    return session.scalar(sa.select(Lab).where(Lab.name == name))


def list_all(session: Session) -> list[Lab]:
    """Return every lab, by name."""
    return list(session.scalars(sa.select(Lab).order_by(Lab.name)))
