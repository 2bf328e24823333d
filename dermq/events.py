"""The audit: who did what when. Events are only ever added, and never one for each image."""

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
    """Add an event to the audit, in the transaction that does what it tells of. A long name of ``by`` is cut."""
    at, actor = at or datetime.now(UTC), by.name[:NAME_LENGTH]
    session.add(Event(at=at, lab_id=lab_id, batch_id=batch_id, actor=actor, action=action, detail=detail))
