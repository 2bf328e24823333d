"""Errors become problem documents for programs and pages for people. Only on SQLite."""

import dataclasses

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import errors
from tests import api
from web import listing, services
from web.http.headers import CONTENT_SECURITY_POLICY
from web.operating import health


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound, 404), (errors.Unauthorized, 401), (errors.Forbidden, 403), (errors.TooLarge, 413),
        (errors.UnsupportedFormat, 415),
        (errors.Rejected, 422), (errors.Conflict, 409), (errors.OutOfSpace, 507), (errors.Unavailable, 503),
        (errors.Transient, 503), (errors.Unfit, 503), (errors.Permanent, 500),
    ],
)  # fmt: skip
def test_each_class_has_its_status(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, error: type[errors.DermqError], status: int
) -> None:
    def fail(*ignored: object, **more: object) -> None:
        raise error("some_code", "What was wrong.")

    monkeypatch.setattr(listing, "list_batches", fail)
    answer = client.get(api.BATCHES)
    problem = api.assert_problem(answer, status, "some_code")
    assert problem["detail"] == "What was wrong."
    assert answer.headers.get("Retry-After") == ("5" if status == 503 else None)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_an_unknown_error_tells_nothing_of_the_inside(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*ignored: object, **more: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(listing, "list_batches", fail)
    answer = client.get(api.BATCHES)
    api.assert_problem(answer, 500, "internal_server_error")
    assert "secret" not in answer.text and "RuntimeError" not in answer.text


def test_addresses_and_methods_that_are_not_there_are_problems(client: FlaskClient) -> None:
    api.assert_problem(client.get("/api/v1/nothing"), 404, "not_found")
    answer = client.post("/api/v1/openapi.json")
    api.assert_problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_people_get_pages(client: FlaskClient) -> None:
    answer = client.get("/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


@pytest.mark.parametrize("path", ["/nothing", "/health/live", "/api/v1/batches", "/api/v1/openapi.json", "/api/docs"])
def test_every_answer_is_hardened(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]


def test_no_page_may_run_what_is_written_in_it() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_files_that_are_the_same_for_everybody_may_be_kept(client: FlaskClient) -> None:
    for address in ("/static/dermq.css", "/api/docs/swagger-ui/swagger-ui.css"):
        with client.get(address) as answer:
            assert answer.status_code == 200 and "no-store" not in answer.headers["Cache-Control"]
    assert client.get("/static/nothing").headers["Cache-Control"] == "no-store"


def test_without_a_bundle_nothing_is_created(app: APIFlask, client: FlaskClient, tmp_path: object) -> None:
    here: services.Services = app.extensions[services.EXTENSION]
    moved = here.settings.model_copy(update={"bundles_dir": tmp_path})
    services.attach(app, dataclasses.replace(here, settings=moved))
    api.assert_problem(client.post(api.BATCHES, json={"name": "x"}), 503, "no_bundle")
    assert not health.examine(services_of(app))["bundle"].ok


def services_of(app: APIFlask) -> services.Services:
    found: services.Services = app.extensions[services.EXTENSION]
    return found
