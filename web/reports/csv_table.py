"""CSV (RFC 4180) with a header and a row for every image."""

from collections.abc import Iterator

from web.reports.cells import cell, csv_lines
from web.reports.report_format import ReportFormat
from web.reports.rows import COLUMNS, by_column
from web.reports.source import Source


def write(source: Source) -> Iterator[str]:
    """Yield the header, then the rows of a page of images at a time."""
    yield csv_lines([COLUMNS])
    for batch, rows in source.pages():
        yield csv_lines([cell(value) for value in by_column(batch, row).values()] for row in rows)


FORMAT = ReportFormat(
    name="CSV",
    ending="csv",
    media_type="text/csv",
    description="Download a CSV with a row for every image.\n\n"
    "Names that a spreadsheet would take for a formula have an apostrophe before them.",
    columns=COLUMNS,
    example=",".join(COLUMNS),
    write=write,
)
