"""Labs, which submit batches, and the share of the queue that each gets."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import errors, events
from dermq.models import Lab, LabUse
from dermq.principals import OPERATOR

QUOTAS = ("max_waiting_images", "max_kept_bytes", "max_open_batches", "max_requests_per_minute")
"""The columns of a lab with quotas of its own."""
Own = Mapping[str, int | None]
"""Quotas of a lab's own by the names in ``QUOTAS``; None stands for the value of the settings."""
NONE: Own = {}


def add(session: Session, name: str, *, weight: float = 1.0, quotas: Own = NONE) -> Lab:
    """Add a lab, with ``QUOTAS`` of its own where it needs other ones than the settings give.

    Raises Rejected for a weight that is not positive, Conflict when a lab has this name already.
    """
    _check_weight(weight)
    if find(session, name) is not None:
        raise errors.Conflict("lab_exists", f"A lab called {name!r} exists already.")
    lab = Lab(name=name, weight=weight, created_at=datetime.now(UTC), **_check_quotas(quotas))
    session.add(lab)
    session.flush()
    session.add(LabUse(lab_id=lab.id))
    events.add(session, "lab added", by=OPERATOR, lab_id=lab.id, at=lab.created_at, name=name)
    return lab


def change(session: Session, lab: Lab, *, weight: float | None = None, quotas: Own = NONE) -> None:
    """Change a lab's weight, and its ``QUOTAS`` that are given; None lets a quota be that of the settings again.

    Raises Rejected for a weight that is not positive.
    """
    if weight is not None:
        _check_weight(weight)
        lab.weight = weight
    if quotas:
        session.execute(sa.update(Lab).where(Lab.id == lab.id).values(_check_quotas(quotas)))
    told: dict[str, Any] = {"weight": lab.weight, **quotas}
    events.add(session, "lab changed", by=OPERATOR, lab_id=lab.id, **told)


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


def _check_weight(weight: float) -> None:
    if not weight > 0:
        raise errors.Rejected("bad_weight", f"The weight is {weight}; it must be greater than 0.")


def _check_quotas(quotas: Own) -> dict[str, Any]:
    if unknown := quotas.keys() - set(QUOTAS):
        raise ValueError(f"{unknown} are no quotas.")
    return dict(quotas)
