"""The OpenAPI document is complete and correct. Only on SQLite."""

import re
from typing import Any

import jsonschema
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import taxonomy
from tests import api, samples

PROBLEM = {"$ref": "#/components/schemas/Problem"}


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


@pytest.fixture
def document(app: APIFlask) -> dict[str, Any]:
    return dict(app.test_client().get("/api/v1/openapi.json").get_json())


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"] == "dermq"
    assert taxonomy.NOTICE in document["info"]["description"]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "session"}
    assert document["security"] == [{"bearer": []}, {"session": []}]


def test_every_route_is_in_it_and_nothing_else(app: APIFlask, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if rule.rule.startswith(("/api/v1/", "/health/")) and method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if rule.endpoint != "openapi.spec"
    }
    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_every_call_is_described_with_its_errors(document: dict[str, Any]) -> None:
    known_tags = {tag["name"] for tag in document["tags"]}
    ids = set()
    for path, method, operation in operations(document):
        what = f"{method} {path}"
        assert operation["summary"].endswith("."), what
        assert set(operation["tags"]) <= known_tags, what
        ids.add(operation["operationId"])
        statuses = set(operation["responses"])
        assert any(status.startswith("2") for status in statuses), what
        if path.startswith("/api/"):
            assert {"401", "403", "429", "503"} <= statuses, what
            assert ("404" in statuses) == ("{" in path), what
        for status, response in operation["responses"].items():
            assert response["description"], what
            if int(status) >= 400:
                media = response["content"]["application/problem+json"]
                assert media["schema"] == PROBLEM, what
                if path.startswith("/api/"):
                    assert media["example"]["status"] == int(status), what
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), what
        assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path"), what
    assert len(ids) == len(operations(document))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    references = re.findall(r"'\$ref': '([^']+)'", str(document))
    assert references
    for reference in references:
        prefix, _, name = reference.rpartition("/")
        assert prefix == "#/components/schemas" and name in schemas
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_example_is_what_its_schema_says(document: dict[str, Any]) -> None:
    shown = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            jsonschema.validate(example, {**schema, "components": document["components"]})
            assert set(example) == set(schema["properties"]), name
            shown += 1
    assert shown >= 6


def test_answers_are_what_the_document_says(client: FlaskClient, document: dict[str, Any]) -> None:
    batch = api.create(client)
    api.put(client, batch, "a.jpg")
    api.put(client, batch, "b.txt", b"text")
    client.put(api.url(batch, "/archive"), data=samples.archive({"c.jpg": samples.jpeg()}))
    base = "/api/v1/batches/{batch_id}"
    for rest in ("", "/images", "/refusals", "/archives"):
        _assert_as_documented(document, base + rest, "get", client.get(api.url(batch, rest)))
    _assert_as_documented(document, f"{base}/images/{{position}}", "get", client.get(api.url(batch, "/images/1")))
    _assert_as_documented(document, "/api/v1/batches", "get", client.get(api.BATCHES))
    _assert_as_documented(document, "/api/v1/batches", "post", api.send(client, [("a.jpg", samples.jpeg())]))
    _assert_as_documented(document, f"{base}/images", "put", api.put(client, batch, "d.jpg", samples.jpeg(3)))
    _assert_as_documented(document, f"{base}/images", "put", api.put(client, batch, "d.jpg", samples.jpeg(4)))
    _assert_as_documented(document, f"{base}/seal", "post", client.post(api.url(batch, "/seal")))
    _assert_as_documented(document, base, "get", client.get(f"{api.BATCHES}/01a209b6-fbf4-7740-aee4-256a76833bda"))


def _assert_as_documented(document: dict[str, Any], path: str, method: str, answer: Any) -> None:
    response = document["paths"][path][method]["responses"][str(answer.status_code)]
    schema = response["content"][answer.mimetype]["schema"]
    jsonschema.validate(answer.get_json(), {**schema, "components": document["components"]})


def test_the_page_works_offline(app: APIFlask) -> None:
    client = app.test_client()
    page = client.get("/api/docs")
    assert taxonomy.NOTICE in page.text
    assert "http" not in page.text
    assert not re.search(r"<script>|<style|style=|onload=", page.text)
    for address in re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text):
        with client.get(address) as asset:
            assert asset.status_code == 200, address
            assert len(asset.data) > 50


def test_no_file_beside_swagger_ui_is_served(app: APIFlask) -> None:
    for name in ("../__init__.py", "..%2f__init__.py", "a/../../__init__.py"):
        assert app.test_client().get(f"/api/docs/swagger-ui/{name}").status_code == 404
