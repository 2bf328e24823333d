"""Finds the batch that a request names, and only among the batches of the lab that sent the request."""

import uuid

from sqlalchemy.orm import Session

from dermq import batches, db
from dermq.models import Batch
from web import services
from web.access import auth


def find(session: Session, batch_id: uuid.UUID) -> Batch:
    """Return the batch with its bundle. Raises NotFound, also when it belongs to another lab."""
    return batches.find(session, auth.get_principal().lab_id, batch_id)


def read(batch_id: uuid.UUID) -> Batch:
    """Return the batch with its bundle, read in a transaction of its own. Raises NotFound."""
    return db.read(services.get_current().sessions, find, batch_id)
