"""Principals: the audit names them, and calls outside their scopes are refused."""

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import access_tokens, db, labs
from dermq.models import NAME_LENGTH, Batch, Event, Lab
from dermq.principals import Scope
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes
from tests.integration.conftest import with_token
from web.access import auth
from worker.reaper import Reaper

LIVE_PAGES = ["/", f"/batches/{uuid.UUID(int=9, version=4)}"]


def actors(sessions: db.Sessions) -> list[tuple[str, str]]:
    """Return the principals and actions of all events, in order."""
    wanted = sa.select(Event.actor, Event.action).order_by(Event.id)
    return [(actor, action) for actor, action in db.read(sessions, lambda session: session.execute(wanted).all())]


def sign_in(app: APIFlask, token: str) -> FlaskClient:
    """A browser that is signed in, with its CSRF token in every request."""
    client: FlaskClient = app.test_client()
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/sign-in").text)
    assert found is not None
    client.post("/sign-in", data={"csrf_token": found[1], "token": token})
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get("/").text)
    assert found is not None
    client.environ_base["HTTP_X_CSRFTOKEN"] = found[1]
    return client


def calls(app: APIFlask, prefix: str) -> list[tuple[str, str]]:
    """Return every call under a path prefix, with invented ids."""
    return [
        (method, re.sub("<int:[^>]*>", "1", re.sub("<uuid:[^>]*>", str(uuid.uuid4()), rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "PUT", "DELETE"}
        if rule.rule.startswith(prefix) and rule.endpoint != "openapi.spec"
    ]


def allow(monkeypatch: pytest.MonkeyPatch, *scopes: Scope) -> None:
    monkeypatch.setattr(auth, "list_scopes", lambda token: frozenset(scopes))


def test_the_audit_names_the_token(client: FlaskClient, sessions: db.Sessions) -> None:
    batch = api.create(client)
    client.post(api.url(batch, "/seal"))
    client.delete(api.url(batch))
    assert actors(sessions)[2:] == [("token 'test'", action) for action in ("created", "sealed", "deleted")]


def test_the_audit_names_the_session(app: APIFlask, token: str, sessions: db.Sessions) -> None:
    browser = sign_in(app, token)
    batch = api.create(browser)
    browser.post(api.url(batch, "/cancel"))
    session = [("session of token 'test'", action) for action in ("created", "cancelled")]
    assert actors(sessions)[2:] == [("token 'test'", "signed in"), *session]


def test_the_audit_names_the_operator(sessions: db.Sessions, lab: Lab, token: str) -> None:
    [issued] = db.read(sessions, access_tokens.list_all, lab.id)
    db.transact(sessions, access_tokens.revoke, issued.id)
    told = [("operator", action) for action in ("lab added", "token issued", "token revoked")]
    assert actors(sessions) == told


def test_the_audit_names_the_reaper(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, settings: Settings, wakeups: fakes.Wakeups
) -> None:
    api.create(client)
    idle = sa.update(Batch).values(touched_at=datetime.now(UTC) - timedelta(days=9))
    db.transact(sessions, lambda session: session.execute(idle) and None)
    Reaper(settings, sessions, blobs, wakeups).run_round()  # type: ignore[arg-type]
    assert actors(sessions)[-1] == ("reaper", "sealed")


def test_the_longest_name_of_a_token_fits_into_the_audit(app: APIFlask, sessions: db.Sessions, lab: Lab) -> None:
    secret = db.transact(sessions, access_tokens.issue, lab, "n" * NAME_LENGTH)
    api.create(with_token(app, secret))
    assert actors(sessions)[-1][0].startswith("token 'nnn")


def test_a_principal_without_the_scope_is_refused_by_every_call(
    app: APIFlask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch)
    found = calls(app, "/api/v1/")
    assert len(found) > 15
    for method, path in found:
        api.assert_problem(client.open(path, method=method), 403, "missing_scope")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.READ, {("GET", ""), ("GET", "/images"), ("GET", "/report.csv")}),
        (Scope.SUBMIT, {("POST", "/seal"), ("PUT", "/images?name=a.jpg"), ("PUT", "/archive")}),
        (Scope.MANAGE, {("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")}),
    ],
)
def test_each_scope_allows_its_own_calls_alone(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, scope: Scope, allowed: set[tuple[str, str]]
) -> None:
    allow(monkeypatch, scope)
    asked = [("GET", ""), ("GET", "/images"), ("GET", "/report.csv"), ("POST", "/seal"), ("PUT", "/images?name=a.jpg"),
             ("PUT", "/archive"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]  # fmt: skip
    statuses = {(method, rest): client.open(f"{api.BATCHES}/{uuid.uuid4()}{rest}", method=method).status_code
                for method, rest in asked}  # fmt: skip
    # 404: the call was allowed, and there is no such batch.
    assert {call for call, status in statuses.items() if status == 404} == allowed
    assert {status for call, status in statuses.items() if call not in allowed} == {403}


@pytest.mark.parametrize("path", LIVE_PAGES)
def test_a_page_of_batches_needs_the_scope_to_read(
    app: APIFlask, token: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    browser = sign_in(app, token)
    allow(monkeypatch, Scope.SUBMIT, Scope.MANAGE)
    answer = browser.get(path)
    assert (answer.status_code, answer.mimetype) == (403, "text/html")


def test_a_principal_without_the_scope_changes_nothing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = api.create(client)
    allow(monkeypatch, Scope.READ, Scope.SUBMIT)
    api.assert_problem(client.delete(api.url(batch)), 403, "missing_scope")
    assert api.status(client, batch)["state"] == "open"


def test_another_lab_is_another_principal(app: APIFlask, sessions: db.Sessions, client: FlaskClient) -> None:
    batch = api.create(client)
    other = db.transact(sessions, labs.add, "other lab")
    stranger = with_token(app, db.transact(sessions, access_tokens.issue, other, "test"))
    api.assert_problem(stranger.delete(api.url(batch)), 404, "no_batch")
    assert actors(sessions)[-1] == ("operator", "token issued")
