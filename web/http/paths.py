"""Tells addresses for programs from addresses for people."""

from flask import request

API = "/api/v1"
_PROGRAMS = ("/api/", "/health/", "/metrics")


def is_for_programs() -> bool:
    """Return whether this request's address answers programs, with JSON and problems, and not people, with pages."""
    return request.path.startswith(_PROGRAMS)
