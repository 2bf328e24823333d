"""Slows down who guesses secrets, by address, and never who has a right one."""

import contextlib
import ipaddress
from collections.abc import Iterator

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
        wait = services.current().wrong_sign_ins.note(network_of(addresses.find_client_address()))
        if wait:
            raise errors.TooMany(
                "too_many_wrong_secrets",
                f"{err.detail} Your address sent many wrong ones; wait {wait} s before the next attempt. "
                "A right one is accepted at any time.",
                wait,
            ) from err
        raise


def network_of(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, in which one client may use every address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
