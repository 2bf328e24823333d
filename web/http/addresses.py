"""From which address a request comes."""

from flask import request


def find_client_address() -> str:
    """Return the address of the client, or an empty string when the server does not know it."""
    return request.remote_addr or ""
