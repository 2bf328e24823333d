"""The API's responses to malformed requests. Only on SQLite, because no SQL is executed."""

import uuid

import pytest
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
