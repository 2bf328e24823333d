"""From an error to an answer: a problem (RFC 9457) for programs, a page for people. Only here classes are read."""

from http import HTTPStatus
from typing import Any

import apiflask
import pydantic
from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException

from dermq import errors
from web.http import bodies, paths

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 5
"""Told in Retry-After when a service cannot take the request now."""

_STATUS: dict[type[errors.DermqError], HTTPStatus] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedFormat: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Rejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.OutOfSpace: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Transient: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Unfit: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Looked up along the class's ancestors, so that the closest wins."""


class Invalid(errors.Rejected):
    """Raised when values of a request are not accepted; lists each."""

    def __init__(self, found: list[dict[str, str]]) -> None:
        super().__init__("invalid_request", " ".join(f"{one['where']}: {one['detail']}." for one in found))
        self.found = found

    @classmethod
    def of(cls, err: pydantic.ValidationError, place: str) -> "Invalid":
        """The same, from what pydantic found wrong with the ``place`` of a request."""
        return cls([{"where": ".".join(map(str, (place, *one["loc"]))), "detail": one["msg"]} for one in err.errors()])


def register(app: Flask) -> None:
    """Answer every error that leaves a view."""
    app.register_error_handler(errors.DermqError, _respond_ours)
    app.register_error_handler(apiflask.HTTPError, _respond_invalid)
    app.register_error_handler(HTTPException, _respond_http)


def status_of(error: errors.DermqError) -> HTTPStatus:
    """The HTTP status that stands for an error."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """The members of a problem."""
    return {
        "type": f"urn:dermq:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "instance": request.path,
        **more,
    }


def respond(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """The answer to a request that failed: a problem, or a page where a person reads it."""
    if paths.for_programs():
        if status != HTTPStatus.UNAUTHORIZED:  # strangers get no thread's time
            bodies.discard_rest()
        body = json.dumps(problem(status, code, detail, **more), ensure_ascii=False)
        response = Response(body, status, content_type=PROBLEM_JSON)
    else:
        title = HTTPStatus(status).phrase
        response = Response(render_template("error.html", status=int(status), title=title, detail=detail), status)
    response.headers.update(headers or {})
    response.headers["Cache-Control"] = "no-store"
    return response


def _respond_ours(error: errors.DermqError) -> Response:
    status = status_of(error)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="dermq"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    more = {"errors": error.found} if isinstance(error, Invalid) else {}
    return respond(status, error.code, error.detail, headers, **more)


def _respond_invalid(error: apiflask.HTTPError) -> Response:
    found = [
        {"where": f"{place}.{field}", "detail": message}
        for place, fields in error.detail.items()
        for field, messages in fields.items()
        for message in messages
    ]
    if not found:
        return respond(error.status_code, "http_error", str(error.message))
    return _respond_ours(Invalid(found))


def _respond_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error
    kept = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    code = "csrf" if type(error).__name__ == "CSRFError" else error.name.lower().replace(" ", "_")
    return respond(error.code, code, error.description or error.name, kept)
