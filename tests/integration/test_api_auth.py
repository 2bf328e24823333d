"""Authentication of the API: tokens, sessions, CSRF. Only on SQLite."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask import Flask, session
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf

from dermq import access_tokens, db, errors, sign_in_codes
from dermq.models import AccessToken
from tests import api
from tests.integration.conftest import with_token
from web.access import auth, signing_in


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


@pytest.fixture
def browser(app: APIFlask, token: str) -> FlaskClient:
    """A client that signed in with the lab's token."""
    return _sign_in(app, lambda: signing_in.sign_in(f" {token}\n"))


def _sign_in(app: Flask, sign_in: Callable[[], None]) -> FlaskClient:
    """A client with the cookie that ``sign_in`` sets, and its CSRF token in ``csrf``."""
    client = app.test_client()
    with app.test_request_context():
        sign_in()
        csrf = generate_csrf()
        response = app.response_class()
        app.session_interface.save_session(app, session, response)
    cookie = response.headers["Set-Cookie"]
    for mark in ("HttpOnly", "SameSite=Lax", "Path=/", "Expires="):
        assert mark in cookie
    name, _, value = cookie.partition(";")[0].partition("=")
    client.set_cookie(name, value)
    client.csrf = csrf  # type: ignore[attr-defined]
    return client


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer dermq_wrong", "Bearer", "Bearer  ", "Basic dXNlcjpwYXNz", "é"]
)
def test_without_a_valid_token_nobody_is_served(app: APIFlask, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for answer in (app.test_client().get(api.BATCHES, headers=headers),
                   app.test_client().post(api.BATCHES, json={"name": "x"}, headers=headers)):  # fmt: skip
        assert answer.status_code == 401
        assert answer.get_json()["code"] in ("no_token", "bad_token")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_revoked_token_ends_at_once_with_its_sessions(
    client: FlaskClient, browser: FlaskClient, sessions: db.Sessions
) -> None:
    assert client.get(api.BATCHES).status_code == browser.get(api.BATCHES).status_code == 200
    token_id = db.read(sessions, lambda session: session.scalar(sa.select(AccessToken.id)))
    assert token_id is not None
    db.transact(sessions, access_tokens.revoke, token_id)
    api.assert_problem(client.get(api.BATCHES), 401, "bad_token")
    api.assert_problem(browser.get(api.BATCHES), 401, "session_ended")


def test_a_cookie_alone_changes_nothing(browser: FlaskClient) -> None:
    for answer in (
        browser.post(api.BATCHES, json={"name": "x"}),
        browser.post(api.BATCHES, json={"name": "x"}, headers={"X-CSRFToken": "made up"}),
        api.send(browser, [], csrf_token=browser.csrf),  # type: ignore[attr-defined]
    ):
        problem = api.assert_problem(answer, 400, "csrf")
        assert "X-CSRFToken" in problem["detail"]
    assert browser.get(api.BATCHES).get_json()["batches"] == []


def test_a_cookie_with_its_csrf_token_does_what_a_token_does(browser: FlaskClient) -> None:
    headers = {"X-CSRFToken": browser.csrf}  # type: ignore[attr-defined]
    batch = browser.post(api.BATCHES, json={"name": "x"}, headers=headers).get_json()
    assert api.send(browser, [("a.jpg", b"text")], headers=headers).status_code == 202
    assert browser.delete(api.url(batch), headers=headers).status_code == 204


def test_another_sessions_csrf_token_does_not_do(app: APIFlask, browser: FlaskClient, token: str) -> None:
    other = _sign_in(app, lambda: signing_in.sign_in(token))
    headers = {"X-CSRFToken": other.csrf}  # type: ignore[attr-defined]
    api.assert_problem(browser.post(api.BATCHES, json={"name": "x"}, headers=headers), 400, "csrf")


def test_a_bearer_token_beside_a_cookie_needs_no_csrf_token(browser: FlaskClient, token: str) -> None:
    answer = browser.post(api.BATCHES, json={"name": "x"}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201


def test_a_sign_in_code_works_once(app: APIFlask, sessions: db.Sessions, token: str) -> None:
    stood_on = db.transact(sessions, access_tokens.authenticate, token)
    code = db.transact(sessions, sign_in_codes.issue, stood_on)
    assert _sign_in(app, lambda: signing_in.sign_in_with_code(code)).get(api.BATCHES).status_code == 200
    with app.test_request_context(), pytest.raises(errors.Unauthorized):
        signing_in.sign_in_with_code(code)


def test_a_wrong_token_signs_nobody_in(app: APIFlask) -> None:
    with app.test_request_context():
        with pytest.raises(errors.Unauthorized):
            signing_in.sign_in("dermq_wrong")
        assert not auth.is_signed_in()


def test_nothing_of_an_earlier_session_lives_on(app: APIFlask, token: str) -> None:
    with app.test_request_context():
        session["csrf_token"] = "known to somebody else"
        signing_in.sign_in(token)
        assert "csrf_token" not in session


def test_signing_out_ends_the_session(app: APIFlask, token: str) -> None:
    with app.test_request_context():
        signing_in.sign_in(token)
        assert auth.get_principal().lab_name == "lab"
        signing_in.sign_out()
        assert not auth.is_signed_in()


def test_a_forged_cookie_is_nobody(app: APIFlask, make_app: Callable[..., APIFlask], browser: FlaskClient) -> None:
    cookie = browser.get_cookie(str(app.config["SESSION_COOKIE_NAME"]))
    assert cookie is not None
    client = app.test_client()
    client.set_cookie(cookie.key, cookie.value[:-3] + "abc")
    api.assert_problem(client.get(api.BATCHES), 401, "no_token")


def test_the_last_use_is_written_at_most_once_a_minute(client: FlaskClient, sessions: db.Sessions) -> None:
    def used() -> datetime | None:
        return db.read(sessions, lambda session: session.scalar(sa.select(AccessToken.last_used_at)))

    client.get(api.BATCHES)
    first = used()
    assert first is not None
    client.get(api.BATCHES)
    assert used() == first
    earlier = sa.update(AccessToken).values(last_used_at=datetime.now(UTC) - timedelta(seconds=61))
    db.transact(sessions, lambda session: session.execute(earlier) and None)
    client.get(api.BATCHES)
    again = used()
    assert again is not None and again > first


def test_a_lab_may_read_while_its_use_cannot_be_written(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*ignored: object) -> None:
        raise errors.OutOfSpace("database_full", "The database's disk is full.")

    monkeypatch.setattr(access_tokens, "mark_used", full)
    assert client.get(api.BATCHES).status_code == 200


def test_a_secure_cookie_has_the_secure_attribute(make_app: Callable[..., APIFlask]) -> None:
    assert make_app(secure_cookies=True).config["SESSION_COOKIE_SECURE"] is True


def test_forms_of_pages_need_a_csrf_token(browser: FlaskClient) -> None:
    answer = browser.post("/")
    assert (answer.status_code, answer.mimetype) == (400, "text/html")


def test_two_clones_on_one_machine_keep_their_cookies_apart(make_app: Callable[..., APIFlask]) -> None:
    names = {make_app(port=port).config["SESSION_COOKIE_NAME"] for port in (8000, 8001)}
    assert len(names) == 2


def test_a_token_in_the_address_is_no_token(app: APIFlask, token: str) -> None:
    assert with_token(app, "").get(f"{api.BATCHES}?token={token}&access_token={token}").status_code == 401
