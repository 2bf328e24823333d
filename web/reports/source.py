"""Reads the images of a batch for a report, page by page, each page in a short transaction of its own."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from dermq import batches, db
from dermq.models import Batch
from web import listing

PAGE_IMAGES = 500


@dataclass(frozen=True)
class Source:
    """The batch of which a report is made."""

    sessions: db.Sessions
    lab_id: int
    batch_id: uuid.UUID

    def read_batch(self) -> Batch:
        """Return the batch as it is now. Raises NotFound."""
        return db.read(self.sessions, batches.find, self.lab_id, self.batch_id)

    def read_pages(self) -> Iterator[tuple[Batch, Sequence[listing.Classified]]]:
        """Yield the batch and a page of its images, until all were yielded in the order of their positions.

        Raises NotFound when the batch is deleted meanwhile.
        """
        cursor: str | None = None
        while True:
            batch, page = self._read_page(cursor)
            yield batch, page.rows
            cursor = page.next_cursor
            if cursor is None:
                return

    def _read_page(self, cursor: str | None) -> tuple[Batch, listing.Page[listing.Classified]]:
        def work(session: Session) -> tuple[Batch, listing.Page[listing.Classified]]:
            batch = batches.find(session, self.lab_id, self.batch_id)
            return batch, listing.list_images(session, batch, limit=PAGE_IMAGES, cursor=cursor)

        return db.read(self.sessions, work)
