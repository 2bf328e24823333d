"""CSV (RFC 4180) with a header and a row for every image."""

from collections.abc import Iterator

from web.reports.cells import make_cell, write_csv_lines
from web.reports.report_format import ReportFormat
from web.reports.rows import COLUMNS, make_row
from web.reports.source import Source


def write(source: Source) -> Iterator[str]:
    """Yield the header, then the rows, one page of images at a time."""
    yield write_csv_lines([COLUMNS])
    for batch, rows in source.read_pages():
        yield write_csv_lines([make_cell(value) for value in make_row(batch, row).values()] for row in rows)


FORMAT = ReportFormat(
    name="CSV",
    ending="csv",
    media_type="text/csv",
    description="Download a CSV with a row for every image.\n\n"
    "A text that a spreadsheet would read as a formula has an apostrophe before it.",
    columns=COLUMNS,
    example=",".join(COLUMNS),
    write=write,
)
