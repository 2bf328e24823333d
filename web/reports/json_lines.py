"""JSON Lines: an object a line for every image, with the columns of the CSV and names as they are."""

import json
from collections.abc import Iterator

from web.reports.report_format import ReportFormat
from web.reports.rows import COLUMNS, by_column
from web.reports.source import Source


def write(source: Source) -> Iterator[str]:
    """Yield the lines of a page of images at a time."""
    for batch, rows in source.pages():
        yield "".join(json.dumps(by_column(batch, row), ensure_ascii=False) + "\n" for row in rows)


FORMAT = ReportFormat(
    name="JSON Lines",
    ending="jsonl",
    media_type="application/jsonl",
    description="Download a JSON object a line for every image, with the columns of the CSV.",
    columns=COLUMNS,
    example='{"position": 1, "file_name": "ISIC_0024306.jpg", "state": "done"}',
    write=write,
)
