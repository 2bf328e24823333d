"""Reports: the images of a batch as text, a page at a time, each page in its own short transaction.

A report of an unfinished batch says so in its file name. Cells for people are data: what a spreadsheet would take
for a formula is written with an apostrophe before it (OWASP, "CSV Injection").
"""

import csv
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy.orm import Session

from dermq import batches, db, taxonomy
from dermq.lifecycle import ImageState
from dermq.models import Batch
from web import listing

PAGE_IMAGES = 500
COLUMNS = (
    "position",
    "file_name",
    "state",
    "diagnosis",
    "confidence",
    "entropy",
    "ood_score",
    *(f"p_{code}" for code in taxonomy.CODES),
    "error_code",
    "error_detail",
    "bundle",
    "notice",
)
ISIC_COLUMNS = ("image", *(code.upper() for code in taxonomy.ISIC_CODES))
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Source:
    """The batch that a report is of."""

    sessions: db.Sessions
    lab_id: int
    batch_id: uuid.UUID

    def batch(self) -> Batch:
        """The batch as it is now. Raises NotFound."""
        return db.read(self.sessions, batches.find, self.lab_id, self.batch_id)

    def pages(self) -> Iterator[tuple[Batch, Sequence[listing.Classified]]]:
        """Every image by position. Raises NotFound when the batch is deleted meanwhile."""
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


def file_name(batch: Batch, ending: str) -> str:
    """What a report is called: `-partial` while the batch has not finished."""
    return f"dermq-{batch.id}{'' if batch.finished_at else '-partial'}.{ending}"


def as_csv(source: Source) -> Iterator[str]:
    """RFC 4180 with a header, a row for every image."""
    yield _written([COLUMNS])
    for batch, rows in source.pages():
        yield _written([_cell(value) for value in _values(batch, row).values()] for row in rows)


def as_jsonl(source: Source) -> Iterator[str]:
    """A JSON object a line for every image, with the columns of the CSV and names as they are."""
    for batch, rows in source.pages():
        yield "".join(json.dumps(_values(batch, row), ensure_ascii=False) + "\n" for row in rows)


def as_isic_csv(source: Source) -> Iterator[str]:
    """The submission format of ISIC 2018 Task 3: every image that is done, and nothing else."""
    ids = _IsicIds(source)
    yield _written([ISIC_COLUMNS])
    for _, rows in source.pages():
        yield _written(
            [_cell(ids.of(image.name)), *(f"{getattr(prediction, f'p_{code}'):.8f}" for code in taxonomy.ISIC_CODES)]
            for image, prediction in rows
            if image.state == ImageState.DONE and prediction is not None
        )


class _IsicIds:
    """The image ids of a batch: the base name without its extension, with its folders where that is not unique."""

    def __init__(self, source: Source) -> None:
        names = (image.name for _, rows in source.pages() for image, _ in rows)
        stems = Counter(PurePosixPath(name).stem for name in names)
        self._shared = {stem for stem, count in stems.items() if count > 1}

    def of(self, name: str) -> str:
        path = PurePosixPath(name)
        return str(path.with_suffix("")) if path.stem in self._shared else path.stem


def _values(batch: Batch, row: listing.Classified) -> dict[str, Any]:
    """One image by column; numbers are numbers, and what is unknown is None."""
    image, prediction = row
    predicted = ("diagnosis", "confidence", "entropy", "ood_score", *(f"p_{code}" for code in taxonomy.CODES))
    return {
        "position": image.position,
        "file_name": image.name,
        "state": image.state.value,
        **{column: None if prediction is None else getattr(prediction, column) for column in predicted},
        "error_code": image.error_code,
        "error_detail": image.error_detail,
        "bundle": f"{batch.bundle.name} {batch.bundle.version}",
        "notice": taxonomy.NOTICE,
    }


def _cell(value: Any) -> Any:
    """A value as a cell for people: never a formula."""
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _written(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
