"""Deleting a batch: hidden at once, then emptied a page at a time, so that no transaction is long."""

import uuid

from sqlalchemy.orm import Session

from dermq import batches, db
from dermq.principals import Principal
from web.services import Services


def delete(services: Services, by: Principal, lab_id: int, batch_id: uuid.UUID) -> None:
    """Delete a lab's batch with its rows and its files. Raises NotFound. What breaks off is ended by the reaper."""

    def hide(session: Session) -> None:
        batches.find(session, lab_id, batch_id)
        batches.mark_deleted(session, batch_id, by=by)

    db.transact(services.sessions, hide)
    db.transact(services.sessions, batches.sweep, batch_id)
    while db.transact(services.sessions, batches.purge_page, batch_id):
        pass
    services.blobs.delete(batch_id)
