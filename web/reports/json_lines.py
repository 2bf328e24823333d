"""JSON Lines: one JSON object a line for every image, with the columns of the CSV and unchanged names."""

import json
from collections.abc import Iterator

from web.reports.report_format import ReportFormat
from web.reports.rows import COLUMNS, make_row
from web.reports.source import Source


def write(source: Source) -> Iterator[str]:
    """Yield the lines, one page of images at a time."""
    for batch, rows in source.read_pages():
        yield "".join(json.dumps(make_row(batch, row), ensure_ascii=False) + "\n" for row in rows)


FORMAT = ReportFormat(
    name="JSON Lines",
    ending="jsonl",
    media_type="application/jsonl",
    description="Download one JSON object a line for every image, with the columns of the CSV.",
    columns=COLUMNS,
    example='{"position": 1, "file_name": "ISIC_0024306.jpg", "state": "done"}',
    write=write,
)
