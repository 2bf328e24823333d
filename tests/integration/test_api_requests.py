"""The API's responses to malformed requests. Only on SQLite, because no SQL is executed."""

import re
import uuid
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from tests import api
from web.reports import registry


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({}, "body.name"),
        ({"name": ""}, "body.name"),
        ({"name": "x" * 256}, "body.name"),
        ({"name": "a\u0000b"}, "body.name"),
        ({"name": "b", "urgent": "maybe"}, "body.urgent"),
        ({"name": "b", "urgent": "yes"}, "body.urgent"),
        ({"name": "b", "urgent": 1}, "body.urgent"),
        ({"name": 7}, "body.name"),
        ({"name": "b", "metadata": {"x": "y" * 20_000}}, "body.metadata"),
        ({"name": "b", "colour": "red"}, "body.colour"),
    ],
)
def test_a_bad_value_is_named(client: FlaskClient, said: dict[str, object], where: str) -> None:
    problem = api.assert_problem(client.post(api.BATCHES, json=said), 422, "invalid_request")
    assert problem["errors"][0]["where"] == where
    assert where in problem["detail"]


def test_no_field_of_a_json_body_takes_a_value_of_another_type(app: APIFlask, client: FlaskClient) -> None:
    """Every field of every call, as the OpenAPI document has them, with a value of every type that it does not have."""
    values: dict[str, list[object]] = {
        "string": ["text"], "integer": [7], "number": [7.5], "boolean": [True], "array": [[]], "object": [{}],
        "null": [None],
    }  # fmt: skip
    texts = ["yes", "true", "1", "7", "[]", "{}", "null", ""]
    tried = 0
    for path, calls in app.spec["paths"].items():
        for method, call in calls.items():
            content = call.get("requestBody", {}).get("content", {}) if isinstance(call, dict) else {}
            schema = content.get("application/json", {}).get("schema")
            for name, field in _fields(app, schema).items():
                right = _types(field)
                wrong = [value for kind, some in values.items() if kind not in right for value in some]
                wrong += [] if "string" in right else texts
                wrong += [] if right & {"integer", "number"} else [0, 1]
                for value in wrong:
                    if isinstance(value, int) and not isinstance(value, bool) and "number" in right:
                        continue
                    address = re.sub(r"{[^}]*}", "0" * 8 + "-0000-7000-8000-" + "0" * 12, path)
                    said = _example(app, schema) | {name: value}
                    answer = client.open(address, method=method.upper(), json=said)
                    problem = api.assert_problem(answer, 422, "invalid_request")
                    assert f"body.{name}" in problem["detail"], (path, said)
                    tried += 1
    assert tried > 20


def _fields(app: APIFlask, schema: dict[str, Any] | None) -> dict[str, Any]:
    return dict(_resolve(app, schema or {}).get("properties", {}))


def _example(app: APIFlask, schema: dict[str, Any]) -> dict[str, Any]:
    return dict(_resolve(app, schema)["examples"][0])


def _resolve(app: APIFlask, schema: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return dict(app.spec["components"]["schemas"][name]) if name else schema


def _types(field: dict[str, Any]) -> set[str]:
    return {one["type"] for one in field.get("anyOf", [field]) if "type" in one}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"[" * 100_000, b'{"name": "a\\ud800b"}', b'{"name": "x", "metadata": {"a": NaN}}']
)
def test_a_body_that_is_no_batch_is_a_problem(client: FlaskClient, body: bytes) -> None:
    answer = client.post(api.BATCHES, data=body, content_type="application/json")
    api.assert_problem(answer, 422, "invalid_request")


def test_a_body_of_another_type_is_a_problem(client: FlaskClient) -> None:
    api.assert_problem(client.post(api.BATCHES, data=b"name=x"), 415, "unsupported_body")


def test_a_json_body_has_a_limit(client: FlaskClient) -> None:
    body = b'{"name": "' + b"x" * 1_100_000 + b'"}'
    answer = client.post(api.BATCHES, data=body, content_type="application/json")
    api.assert_problem(answer, 413, "request_entity_too_large")


@pytest.mark.parametrize("cursor", ["%", "bm90LWEtdXVpZA", "é", "a" * 150])
def test_a_made_up_cursor_is_a_problem(client: FlaskClient, cursor: str) -> None:
    api.assert_problem(client.get(api.BATCHES, query_string={"cursor": cursor}), 422, "bad_cursor")


def test_a_bad_limit_is_a_problem(client: FlaskClient) -> None:
    problem = api.assert_problem(client.get(f"{api.BATCHES}?limit=0"), 422, "invalid_request")
    assert problem["errors"][0]["where"] == "query.limit"


CALLS = [
    ("GET", ""), ("DELETE", ""), ("POST", "/seal"), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/images"),
    ("PUT", "/images?name=a.jpg"), ("GET", "/images/1"), ("GET", "/images/1/thumbnail"), ("PUT", "/archive"),
    ("GET", "/archives"), ("GET", f"/archives/{uuid.UUID(int=9, version=4)}"), ("GET", "/refusals"),
    *(("GET", f"/report.{report_format.ending}") for report_format in registry.FORMATS),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rest"), CALLS)
def test_another_labs_batch_is_not_found(client: FlaskClient, stranger: FlaskClient, method: str, rest: str) -> None:
    batch = api.create(client)
    api.put(client, batch, "a.jpg")
    before = api.status(client, batch)
    api.assert_problem(stranger.open(api.url(batch, rest), method=method), 404, "no_batch")
    assert api.status(client, batch) == before


@pytest.mark.parametrize("batch_id", [str(uuid.UUID(int=9, version=4)), "1", "..", "not-a-uuid"])
def test_an_id_of_no_batch_is_not_found(client: FlaskClient, batch_id: str) -> None:
    answer = client.get(f"{api.BATCHES}/{batch_id}")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
