"""Security headers of every answer: a browser may not load, run or embed what our pages do not use, nor keep them."""

from http import HTTPStatus

from flask import Flask, Response, request

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


_STATIC = ("static", "send_asset")
"""Last parts of the endpoints that send files which are the same for everybody."""


def register(app: Flask) -> None:
    """Add the headers to every answer of ``app``; a header that a view has set stays."""
    app.after_request(_harden)


def _harden(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if str(request.endpoint).rpartition(".")[2] not in _STATIC or response.status_code >= HTTPStatus.BAD_REQUEST:
        # Nothing that somebody saw stays on a disk, or in a proxy, or is shown by the back button after signing out.
        response.headers["Cache-Control"] = "no-store"
    return response
