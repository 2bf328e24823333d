"""Short ways to say what a client of the API does, and what it checks of an answer."""

import io
from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import samples

BATCHES = "/api/v1/batches"


def create(client: FlaskClient, **said: Any) -> dict[str, Any]:
    """Create an empty batch and return its status."""
    answer = client.post(BATCHES, json={"name": "batch", **said})
    assert answer.status_code == 201, answer.text
    return dict(answer.get_json())


def url(batch: dict[str, Any], rest: str = "") -> str:
    return f"{BATCHES}/{batch['id']}{rest}"


def put(client: FlaskClient, batch: dict[str, Any], name: str, data: bytes | None = None) -> TestResponse:
    """Put one image into a batch."""
    return client.put(url(batch, f"/images?name={quote(name, safe='')}"), data=samples.jpeg() if data is None else data)


def send(client: FlaskClient, files: list[tuple[str, bytes]], **fields: str) -> TestResponse:
    """Create a batch with files in one multipart request."""
    form: dict[str, Any] = {"name": "batch", **fields}
    form["files"] = [(io.BytesIO(data), name) for name, data in files]
    return client.post(BATCHES, data=form, content_type="multipart/form-data", headers={})


def status(client: FlaskClient, batch: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(url(batch))
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def refusals(client: FlaskClient, batch: dict[str, Any]) -> dict[str, str]:
    """Code of each refusal by name."""
    return {one["name"]: one["code"] for one in client.get(url(batch, "/refusals")).get_json()["refusals"]}


def assert_problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem, and return it."""
    assert answer.content_type == "application/problem+json", answer.text
    problem = dict(answer.get_json())
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"urn:dermq:problem:{code}"
    assert problem["title"] and problem["detail"] and problem["instance"].startswith("/")
    return problem
