"""The images of a batch as a report reads them: a page at a time, each page in its own short transaction."""

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
    """The batch that a report is made from."""

    sessions: db.Sessions
    lab_id: int
    batch_id: uuid.UUID

    def batch(self) -> Batch:
        """Return the batch as it is now. Raises NotFound."""
        return db.read(self.sessions, batches.find, self.lab_id, self.batch_id)

    def pages(self) -> Iterator[tuple[Batch, Sequence[listing.Classified]]]:
        """Yield every image by position. Raises NotFound when the batch is deleted meanwhile."""
        cursor: str | None = None
        while True:
            batch, page = self._page(cursor)
            yield batch, page.rows
            cursor = page.next_cursor
            if cursor is None:
                return

    def _page(self, cursor: str | None) -> tuple[Batch, listing.Page[listing.Classified]]:
        def work(session: Session) -> tuple[Batch, listing.Page[listing.Classified]]:
            batch = batches.find(session, self.lab_id, self.batch_id)
            return batch, listing.images(session, batch, limit=PAGE_IMAGES, cursor=cursor)

        return db.read(self.sessions, work)
