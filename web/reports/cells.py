"""Cells of tables that open in a spreadsheet, which must never read them as formulas (OWASP, "CSV Injection")."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def make_cell(value: Any) -> Any:
    """Return a value as a cell. A text that a spreadsheet would read as a formula gets an apostrophe before it."""
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def write_csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows of cells as lines of CSV (RFC 4180)."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
