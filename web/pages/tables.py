"""Lists on pages, with the addresses of their first and next page."""

from dataclasses import dataclass
from typing import Any

from flask import request, url_for

from web import listing


@dataclass(frozen=True)
class Table:
    """Some rows of a list, and the addresses of its first and its next page."""

    rows: Any
    first_address: str | None
    next_address: str | None

    @classmethod
    def of(cls, page: listing.Page[Any], parameter: str) -> "Table":
        """Give a listed page its addresses: those of this request, but for the cursor in ``parameter``."""
        here = request.args.to_dict()
        before = here.pop(parameter, None)
        following = page.next_cursor and _address({**here, parameter: page.next_cursor})
        return cls(page.rows, _address(here) if before else None, following)


def _address(arguments: dict[str, str]) -> str:
    return url_for(str(request.endpoint), **{**(request.view_args or {}), **arguments})
