"""Removing what is left of a deleted batch: a page of rows at a time, so that no transaction is long."""

import uuid

from dermq import batches, db
from dermq.storage import BlobStore


def purge(sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID) -> None:
    """Remove the rows and the files of a batch that ``batches.mark_deleted`` has hidden.

    Every step is a transaction of its own. Safe to do twice: the reaper finishes what broke off.
    """
    db.transact(sessions, batches.sweep, batch_id)
    while db.transact(sessions, batches.purge_page, batch_id):
        pass
    blobs.delete_batch(batch_id)
