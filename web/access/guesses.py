"""Slows down addresses that guess secrets. A right secret is never slowed down."""

import contextlib
from collections.abc import Iterator

from flask import request

from dermq import errors
from web import services
from web.http import addresses


@contextlib.contextmanager
def slow_down() -> Iterator[None]:
    """Raise TooMany instead of Unauthorized when the address sends many wrong secrets without a pause.

    The block has checked the secret before. So a right one is never refused, even while somebody guesses from the same
    address. Guessing has no chance anyway: secrets have at least 128 random bits.
    """
    try:
        yield
    except errors.Unauthorized as err:
        wait = services.get_current().wrong_sign_ins.note(addresses.find_client_site(request))
        if wait:
            raise errors.TooMany(
                "too_many_wrong_secrets",
                f"{err.detail} Your address sent many wrong ones; wait {wait} s before the next attempt. "
                "A right one is accepted at any time.",
                wait,
            ) from err
        raise
