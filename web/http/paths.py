"""Which addresses are for programs and which are for people."""

from flask import request

API = "/api/v1"
_PROGRAMS = ("/api/", "/health/", "/metrics")


def for_programs() -> bool:
    """Whether this request's address answers in JSON and problems rather than in pages."""
    return request.path.startswith(_PROGRAMS)
