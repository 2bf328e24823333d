"""The batches of the lab that is asking. The batch that a request names is found here, so no other lab's is."""

import uuid

from sqlalchemy.orm import Session

from dermq import batches, db
from dermq.models import Batch
from web import services
from web.access import auth


def find(session: Session, batch_id: uuid.UUID) -> Batch:
    """Return the batch with its bundle. Raises NotFound, for another lab's batch as well."""
    return batches.find(session, auth.principal().lab_id, batch_id)


def read(batch_id: uuid.UUID) -> Batch:
    """Return the batch with its bundle, read in a transaction of its own. Raises NotFound."""
    return db.read(services.current().sessions, find, batch_id)
