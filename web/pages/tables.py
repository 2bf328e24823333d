"""Tables on pages, with links to their first and next page of rows."""

from dataclasses import dataclass
from typing import Any

from flask import request, url_for

from web import listing


@dataclass(frozen=True)
class Table:
    """One page of rows, and the addresses of the first and the next page."""

    rows: Any
    first_address: str | None
    next_address: str | None

    @classmethod
    def of(cls, page: listing.Page[Any], parameter: str) -> "Table":
        """Return the table of a page. Its addresses are that of this request with another cursor in ``parameter``."""
        here = request.args.to_dict()
        before = here.pop(parameter, None)
        following = page.next_cursor and _make_address({**here, parameter: page.next_cursor})
        return cls(page.rows, _make_address(here) if before else None, following)


def _make_address(arguments: dict[str, str]) -> str:
    return url_for(str(request.endpoint), **{**(request.view_args or {}), **arguments})
