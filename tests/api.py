"""Calls of the API as a client makes them, and checks of the responses."""

from typing import Any, BinaryIO
from urllib.parse import quote

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import samples

BATCHES = "/api/v1/batches"
BOUNDARY = "dermq-test-boundary"


def create(client: FlaskClient, **said: Any) -> dict[str, Any]:
    """Create an empty batch and return its status."""
    answer = client.post(BATCHES, json={"name": "batch", **said})
    assert answer.status_code == 201, answer.text
    return dict(answer.get_json())


def url(batch: dict[str, Any], rest: str = "") -> str:
    return f"{BATCHES}/{batch['id']}{rest}"


def put(client: FlaskClient, batch: dict[str, Any], name: str, data: bytes | None = None) -> TestResponse:
    """Upload one image to a batch."""
    return client.put(url(batch, f"/images?name={quote(name, safe='')}"), data=samples.jpeg() if data is None else data)


def send(
    client: FlaskClient, files: list[tuple[str, bytes]], headers: dict[str, str] | None = None, **fields: str
) -> TestResponse:
    """Create a batch with files in one multipart request."""
    body = multipart(files, {"name": "batch", **fields})
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return client.post(BATCHES, data=body, content_type=kind, headers=headers)


def multipart(files: list[tuple[str, bytes]], fields: dict[str, str]) -> bytes:
    """Return a multipart body as a browser writes it: names in UTF-8, with only the quote escaped."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="files"; filename="{name.replace(chr(34), "%22")}"', data) for name, data in files]
    whole = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return whole + f"--{BOUNDARY}--\r\n".encode()


def streamed(body: BinaryIO, length: int | None = None) -> dict[str, Any]:
    """Return the WSGI environment of ``body`` as gunicorn gives it: with a ``length``, or chunked without one."""
    announced = {} if length is None else {"CONTENT_LENGTH": str(length)}
    return {"wsgi.input": body, "wsgi.input_terminated": True, **announced}


def status(client: FlaskClient, batch: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(url(batch))
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def refusals(client: FlaskClient, batch: dict[str, Any]) -> dict[str, str]:
    """Return the code of each refusal, by file name."""
    return {one["name"]: one["code"] for one in client.get(url(batch, "/refusals")).get_json()["refusals"]}


def assert_problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a complete problem document, and return it."""
    assert answer.content_type == "application/problem+json", answer.text
    problem = dict(answer.get_json())
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"urn:dermq:problem:{code}"
    assert problem["title"] and problem["detail"] and problem["instance"].startswith("/")
    return problem
