"""Turns errors into answers: a problem (RFC 9457) for programs, a page for people."""

from http import HTTPStatus
from typing import Any

import apiflask
import pydantic
from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException

from dermq import errors
from web.http import paths

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 5
"""Value of Retry-After when a service cannot take the request now."""

_STATUS: dict[type[errors.DermqError], HTTPStatus] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedFormat: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Rejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.OutOfSpace: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Transient: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Unfit: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of an error is that of the closest class among its ancestors."""

_HEADINGS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "The request could not be read",
    HTTPStatus.FORBIDDEN: "Not allowed",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.CONFLICT: "Not possible now",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Not accepted",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "Please try again shortly",
    HTTPStatus.INSUFFICIENT_STORAGE: "The disk is full",
}
"""Headings of error pages, which are written for a lab."""


class Invalid(errors.Rejected):
    """Raised when values of a request are not accepted; ``found`` has the place and the reason for each."""

    def __init__(self, found: list[dict[str, str]]) -> None:
        super().__init__("invalid_request", " ".join(f"{one['where']}: {one['detail']}." for one in found))
        self.found = found

    @classmethod
    def of(cls, err: pydantic.ValidationError, place: str) -> "Invalid":
        """Return the error for what pydantic rejected in one ``place`` of a request, such as its body."""
        return cls([{"where": ".".join(map(str, (place, *one["loc"]))), "detail": one["msg"]} for one in err.errors()])


def register(app: Flask) -> None:
    """Add handlers that answer every error that a view of ``app`` raises."""
    app.register_error_handler(errors.DermqError, _respond_ours)
    app.register_error_handler(apiflask.HTTPError, _respond_invalid)
    app.register_error_handler(HTTPException, _respond_http)


def find_status(error: errors.DermqError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def list_headers(error: errors.DermqError) -> dict[str, str]:
    """Return the headers of the answer to an error: how to sign in, or when to try again."""
    status = find_status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="dermq"'}
    if isinstance(error, errors.TooMany | errors.Unavailable):
        return {"Retry-After": str(error.retry_seconds)}
    return {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def make_problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return the members of a problem (RFC 9457) about this request."""
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
    """Return the answer to a failed request: a problem at an address for programs, else a page."""
    if paths.is_for_programs():
        body = json.dumps(make_problem(status, code, detail, **more), ensure_ascii=False)
        response = Response(body, status, content_type=PROBLEM_JSON)
    else:
        title = _HEADINGS.get(status, "Something went wrong")
        response = Response(render_template("error.html", title=title, detail=detail), status)
    response.headers.update(headers or {})
    return response


def _respond_ours(error: errors.DermqError) -> Response:
    more = {"errors": error.found} if isinstance(error, Invalid) else {}
    return respond(find_status(error), error.code, error.detail, list_headers(error), **more)


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
