"""The OpenAPI document: the parts that APIFlask cannot generate, and the errors that many calls share."""

import json
import re
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask

from dermq import taxonomy
from web.errors import PROBLEM_JSON

_PROBLEM = "#/components/schemas/Problem"
_WORDS = {
    400: ("bad_request", "The body is incomplete or does not match its Content-Type, or a CSRF token is missing."),
    401: ("bad_token", "The access token is missing, wrong, expired or revoked, or the session has ended."),
    403: ("missing_scope", "The token lacks the scope, or the lab is disabled or has too many open batches."),
    404: ("no_batch", "It does not exist, or it belongs to another lab."),
    409: ("batch_sealed", "The present state of the batch does not allow it."),
    413: ("image_too_large", "The body, the image or the batch is over a limit."),
    415: ("unsupported_format", "The file has no accepted format."),
    429: ("quota_waiting_images", "A quota of the lab is used up, or too many tokens were wrong; see Retry-After."),
    422: ("invalid_request", "A value is not accepted; `detail` says what is."),
    503: ("busy_receiving", "The service cannot take the request now; Retry-After says when to try again."),
    507: ("storage_full", "The disk is full, or the lab's quota of bytes is; what was accepted before is kept."),
}
_DESCRIPTION = f"""\
**{taxonomy.NOTICE}**

A lab creates a batch, adds images (one by one, as an archive, or all in one request), seals the batch, polls its status
and downloads a report. Send an access token as `Authorization: Bearer …`. A browser that is signed in may use its
session instead; its unsafe calls must then have the header `X-CSRFToken`.

Errors are problems (RFC 9457) with a stable `code` for programs and a `detail` for people. Lists have a
`next_cursor`. Times are UTC.
"""
CONFIGURATION = {
    "OPENAPI_VERSION": "3.1.0",
    "DESCRIPTION": _DESCRIPTION,
    "LICENSE": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "SERVERS": [{"url": "/"}],
    "AUTO_404_RESPONSE": False,
    "AUTO_VALIDATION_ERROR_RESPONSE": False,
    "AUTO_AUTH_ERROR_RESPONSE": False,
    "AUTO_OPERATION_ID": True,
}


def describe_responses(*statuses: int, also: dict[int, dict[str, Any]] | None = None) -> dict[int, Any]:
    """Return the documented problems of a call that needs a token, and the complete responses in ``also``."""
    return {**(also or {}), **{status: _describe_problem(status) for status in sorted({401, 403, 429, 503, *statuses})}}


def describe_content(mimetype: str, schema: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:
    """Return the documentation of a response with a body."""
    return {"description": description, "content": {mimetype: {"schema": schema}}, **more}


def describe_accepted(schema: type, description: str) -> dict[str, Any]:
    """Return the documentation of the response to work that was accepted and is not done yet."""
    headers = {
        "Location": {"description": "The address to poll for the result.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to poll.", "schema": {"type": "integer"}},
    }
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return describe_content("application/json", reference, description, headers=headers)


def describe_body(*mimetypes: str, description: str) -> dict[str, Any]:
    """Return the documentation of a raw request body."""
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return {"required": True, "description": description, "content": dict.fromkeys(mimetypes, binary)}


def register(app: APIFlask) -> None:
    """Let ``app`` complete the document that APIFlask generates."""
    app.config.update(CONFIGURATION)
    app.security_schemes = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An access token of a lab."},
        "session": {"type": "apiKey", "in": "cookie", "name": app.config["SESSION_COOKIE_NAME"]},
    }
    app.spec_processor(_complete)


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    document = _merge_schemas(document)
    document["components"]["schemas"]["Problem"] = _describe_problem_schema()
    document["security"] = [{"bearer": []}, {"session": []}]
    for path, operations in document["paths"].items():
        if path.startswith("/health"):
            for operation in operations.values():
                operation["security"] = []
    return document


def _merge_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """Merge the copies of a schema: for each schema `User` that uses `Used`, APIFlask writes a copy `User.Used`."""
    document = json.loads(re.sub(r'"#/components/schemas/\w+\.', '"#/components/schemas/', json.dumps(document)))
    components = document["components"]
    components["schemas"] = {name.rpartition(".")[2]: schema for name, schema in components["schemas"].items()}
    return document


def _describe_problem(status: int) -> dict[str, Any]:
    code, description = _WORDS[status]
    example = {
        "type": f"urn:dermq:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": description,
        "code": code,
        "instance": "/api/v1/batches",
    }
    media = {PROBLEM_JSON: {"schema": {"$ref": _PROBLEM}, "example": example}}
    return {"description": description, "content": media}


def _describe_problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    where = {"type": "object", "properties": {"where": text, "detail": text}, "required": ["where", "detail"]}
    return {
        "type": "object",
        "description": "An error (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "instance"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "`urn:dermq:problem:` and the code."},
            "title": text,
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What was wrong and what is allowed."},
            "code": {"type": "string", "description": "Stable, for programs."},
            "instance": {"type": "string", "description": "The path of the request."},
            "errors": {"type": "array", "items": where, "description": "Each wrong value of an invalid request."},
        },
    }
