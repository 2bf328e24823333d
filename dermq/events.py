"""The audit log: who did what and when. Events are added and never changed; no event is about a single image."""

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from dermq.models import NAME_LENGTH, Event
from dermq.principals import Principal


def add(
    session: Session,
    action: str,
    *,
    by: Principal,
    lab_id: int | None,
    batch_id: uuid.UUID | None = None,
    at: datetime | None = None,
    **detail: Any,
) -> None:
    """Add an event to the audit log, in the transaction of the action itself. A long name of ``by`` is cut."""
    at, actor = at or datetime.now(UTC), by.name[:NAME_LENGTH]
    session.add(Event(at=at, lab_id=lab_id, batch_id=batch_id, actor=actor, action=action, detail=detail))
