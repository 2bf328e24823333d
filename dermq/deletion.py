"""Remove the rows and files of a deleted batch, a page of rows at a time, so that every transaction is short."""

import uuid

from dermq import batches, db
from dermq.storage import BlobStore


def purge(sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID) -> None:
    """Remove the rows and the files of a batch that ``batches.mark_deleted`` has marked.

    Commits after every page. Idempotent: the reaper calls it again for a batch whose deletion was interrupted.
    """
    db.transact(sessions, batches.sweep, batch_id)
    while db.transact(sessions, batches.purge_page, batch_id):
        pass
    blobs.delete_batch(batch_id)
