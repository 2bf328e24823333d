"""Sessions, scopes, expiry, disabled labs and slowed guesses, as requests meet them."""

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import access_tokens, browser_sessions, bundles, db, errors, labs, sign_in_codes
from dermq.models import AccessToken, BrowserSession, Event, Lab, SignInCode
from dermq.principals import Scope
from dermq.queue import archive_claims, claims
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import api, fakes, samples, scenarios
from tests.integration.conftest import with_token
from web import services
from web.rates import FREE_ATTEMPTS, WrongSignIns
from worker.reaper import Reaper

SESSIONS = "/api/v1/lab/sessions"
TOKENS = "/api/v1/lab/tokens"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"


class Browser:
    """A browser that is signed in, and knows its CSRF token."""

    def __init__(self, app: APIFlask, token: str) -> None:
        self.client: FlaskClient = app.test_client()
        self.client.environ_base["HTTP_USER_AGENT"] = FIREFOX
        self.cookie_name = str(app.config["SESSION_COOKIE_NAME"])
        answer = self.client.post("/sign-in", data={"csrf_token": self._csrf(), "token": token})
        assert answer.status_code == 302, answer.text
        self.client.environ_base["HTTP_X_CSRFTOKEN"] = self._csrf()

    @property
    def cookie(self) -> str:
        found = self.client.get_cookie(self.cookie_name)
        assert found is not None
        return found.value

    def copy_cookie(self, app: APIFlask) -> FlaskClient:
        """Another client with a copy of this browser's cookie, as a thief has it."""
        thief: FlaskClient = app.test_client()
        thief.set_cookie(self.cookie_name, self.cookie)
        return thief

    def sign_out(self) -> None:
        answer = self.client.post("/sign-out", data={"csrf_token": self._csrf()})
        assert answer.status_code == 302

    def _csrf(self) -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.client.get("/sign-in").text)
        assert found is not None
        return found[1]


@pytest.fixture
def browser(app: APIFlask, token: str) -> Browser:
    return Browser(app, token)


def change(sessions: db.Sessions, table: type, **values: Any) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(table).values(**values)) and None)


def rows(sessions: db.Sessions) -> int:
    counted = sa.select(sa.func.count()).select_from(BrowserSession)
    return db.read(sessions, lambda session: session.scalar(counted)) or 0


def issue(sessions: db.Sessions, lab: Lab, *scopes: Scope, **more: Any) -> str:
    return db.transact(sessions, access_tokens.issue, lab, "more", scopes=scopes, **more)


def test_after_signing_out_a_copy_of_the_cookie_is_worthless(
    app: APIFlask, browser: Browser, sessions: db.Sessions
) -> None:
    thief = browser.copy_cookie(app)
    assert thief.get(api.BATCHES).status_code == 200
    browser.sign_out()
    api.assert_problem(thief.get(api.BATCHES), 401, "session_ended")
    assert thief.get("/").location == "/sign-in?next=/"
    assert rows(sessions) == 0


def test_the_database_holds_no_secret_of_a_session(app: APIFlask, browser: Browser, sessions: db.Sessions) -> None:
    with browser.client.session_transaction() as cookie:
        secret = cookie["secret"]
    stored = db.read(sessions, lambda session: session.execute(sa.select(BrowserSession.__table__)).one())
    assert secret not in map(str, stored)
    assert stored.secret_sha256 == access_tokens.hash_secret(secret)


def test_signing_in_again_ends_the_session_before(
    app: APIFlask, browser: Browser, sessions: db.Sessions, lab: Lab, token: str
) -> None:
    thief = browser.copy_cookie(app)
    stood_on = db.read(sessions, access_tokens.authenticate, token)
    browser.client.get(f"/sign-in?code={db.transact(sessions, sign_in_codes.issue, stood_on)}")
    assert browser.client.get(api.BATCHES).status_code == 200
    api.assert_problem(thief.get(api.BATCHES), 401, "session_ended")
    assert rows(sessions) == 1


def test_an_idle_session_ends(browser: Browser, sessions: db.Sessions, settings: Settings) -> None:
    almost = datetime.now(UTC) - timedelta(hours=settings.session_idle_hours) + timedelta(minutes=1)
    change(sessions, BrowserSession, last_used_at=almost)
    assert browser.client.get(api.BATCHES).status_code == 200  # and this use is written
    change(sessions, BrowserSession, last_used_at=almost - timedelta(minutes=2))
    api.assert_problem(browser.client.get(api.BATCHES), 401, "session_ended")


def test_a_session_ends_at_its_time_however_much_it_is_used(browser: Browser, sessions: db.Sessions) -> None:
    change(sessions, BrowserSession, ends_at=datetime.now(UTC) + timedelta(minutes=1))
    assert browser.client.get(api.BATCHES).status_code == 200
    change(sessions, BrowserSession, ends_at=datetime.now(UTC) - timedelta(seconds=1))
    api.assert_problem(browser.client.get(api.BATCHES), 401, "session_ended")


def test_a_session_ends_no_later_than_its_token(app: APIFlask, sessions: db.Sessions, lab: Lab) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    Browser(app, issue(sessions, lab, *Scope, expires_at=until))
    assert db.read(sessions, lambda session: session.scalar(sa.select(BrowserSession.ends_at))) == until


def test_ended_sessions_leave_no_rows(app: APIFlask, browser: Browser, sessions: db.Sessions, token: str) -> None:
    change(sessions, BrowserSession, ends_at=datetime.now(UTC) - timedelta(seconds=1))
    Browser(app, token)
    assert rows(sessions) == 1


def test_a_token_has_a_bounded_number_of_sessions(
    sessions: db.Sessions, settings: Settings, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_sessions, "MOST_OF_A_TOKEN", 3)
    row = db.read(sessions, access_tokens.authenticate, token)
    visitor = browser_sessions.Visitor("b", "a")
    secrets = [db.transact(sessions, browser_sessions.begin, row, visitor, settings) for _ in range(5)]
    assert rows(sessions) == 3
    with pytest.raises(errors.Unauthorized):
        db.read(sessions, browser_sessions.find, secrets[1], settings)
    assert db.read(sessions, browser_sessions.find, secrets[2], settings)


def test_the_use_of_a_session_is_written_at_most_once_a_minute(browser: Browser, sessions: db.Sessions) -> None:
    def used() -> datetime:
        return db.read(sessions, lambda session: session.execute(sa.select(BrowserSession.last_used_at)).scalar_one())

    recent = datetime.now(UTC) - timedelta(seconds=50)
    change(sessions, BrowserSession, last_used_at=recent)
    browser.client.get("/")
    assert used() == recent
    change(sessions, BrowserSession, last_used_at=recent - timedelta(seconds=20))
    browser.client.get("/", headers={"If-None-Match": '"seen"'})  # a page that refreshes itself
    assert used() == recent - timedelta(seconds=20)
    browser.client.get("/")
    assert used() > recent


def test_a_lab_sees_who_is_signed_in_and_ends_one(app: APIFlask, browser: Browser, token: str) -> None:
    other = Browser(app, token)
    listed = browser.client.get(SESSIONS).get_json()["sessions"]
    assert [(one["token"], one["browser"], one["current"]) for one in listed] == [
        ("test", FIREFOX, False),
        ("test", FIREFOX, True),
    ]
    assert browser.client.delete(f"{SESSIONS}/{listed[0]['id']}").status_code == 204
    api.assert_problem(other.client.get(api.BATCHES), 401, "session_ended")
    assert browser.client.get(api.BATCHES).status_code == 200


def test_ending_all_sessions_leaves_the_one_that_asks(
    app: APIFlask, browser: Browser, token: str, client: FlaskClient, stranger: FlaskClient, sessions: db.Sessions
) -> None:
    others = [Browser(app, token) for _ in range(3)]
    secret = stranger.environ_base["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    elsewhere = Browser(app, secret)
    assert browser.client.delete(SESSIONS).status_code == 204
    assert [one.client.get(api.BATCHES).status_code for one in others] == [401] * 3
    assert browser.client.get(api.BATCHES).status_code == 200
    assert client.delete(SESSIONS).status_code == 204  # a program has no session of its own
    assert browser.client.get(api.BATCHES).status_code == 401
    assert elsewhere.client.get(api.BATCHES).status_code == 200
    told = db.read(sessions, lambda session: session.scalars(sa.select(Event.action)).all())
    assert told.count("sessions ended") == 2


def test_nobody_sees_or_ends_what_belongs_to_another_lab(
    browser: Browser, stranger: FlaskClient, sessions: db.Sessions
) -> None:
    mine = browser.client.get(SESSIONS).get_json()["sessions"][0]["id"]
    own = browser.client.get(TOKENS).get_json()["tokens"][0]["id"]
    assert stranger.get(SESSIONS).get_json() == {"sessions": []}
    assert [one["id"] for one in stranger.get(TOKENS).get_json()["tokens"]] != [own]
    api.assert_problem(stranger.delete(f"{SESSIONS}/{mine}"), 404, "no_session")
    api.assert_problem(stranger.delete(f"{TOKENS}/{own}"), 404, "no_token")
    assert stranger.delete(SESSIONS).status_code == 204
    assert browser.client.get(api.BATCHES).status_code == 200


@pytest.mark.parametrize("number", [0, 2**31, 2**63 - 1, 2**63, 10**30])
def test_an_id_of_any_size_is_not_found(client: FlaskClient, number: int) -> None:
    api.assert_problem(client.delete(f"{SESSIONS}/{number}"), 404, "no_session")
    api.assert_problem(client.delete(f"{TOKENS}/{number}"), 404, "no_token")


def test_a_lab_revokes_its_own_token(browser: Browser, client: FlaskClient, sessions: db.Sessions) -> None:
    [own] = client.get(TOKENS).get_json()["tokens"]
    assert set(own["scopes"]) == set(Scope) and own["revoked_at"] is None and own["last_used_at"] is not None
    assert client.delete(f"{TOKENS}/{own['id']}").status_code == 204
    api.assert_problem(client.get(api.BATCHES), 401, "bad_token")
    api.assert_problem(browser.client.get(api.BATCHES), 401, "session_ended")
    assert rows(sessions) == 0


def test_a_token_has_the_scopes_that_were_chosen(app: APIFlask, sessions: db.Sessions, lab: Lab) -> None:
    reader = with_token(app, issue(sessions, lab, Scope.READ))
    assert reader.get(api.BATCHES).status_code == 200
    api.assert_problem(reader.post(api.BATCHES, json={"name": "x"}), 403, "missing_scope")
    api.assert_problem(reader.get(TOKENS), 403, "missing_scope")
    seen = Browser(app, issue(sessions, lab, Scope.READ)).client
    api.assert_problem(seen.post(api.BATCHES, json={"name": "x"}), 403, "missing_scope")


def test_a_token_without_scopes_or_time_is_not_issued(sessions: db.Sessions, lab: Lab) -> None:
    with pytest.raises(errors.Rejected, match="no scope"):
        issue(sessions, lab)
    with pytest.raises(errors.Rejected, match="expired already"):
        issue(sessions, lab, Scope.READ, expires_at=datetime.now(UTC))


def test_an_expired_token_ends_with_its_sessions(app: APIFlask, sessions: db.Sessions, lab: Lab) -> None:
    secret = issue(sessions, lab, *Scope, expires_at=datetime.now(UTC) + timedelta(days=1))
    program, seen = with_token(app, secret), Browser(app, secret).client
    assert program.get(api.BATCHES).status_code == seen.get(api.BATCHES).status_code == 200
    change(sessions, AccessToken, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for one in (program, seen):
        api.assert_problem(one.get(api.BATCHES), 401, "token_expired")


def disable(sessions: db.Sessions, lab: Lab) -> None:
    db.transact(sessions, lambda session: labs.disable(session, session.get_one(Lab, lab.id)))


def enable(sessions: db.Sessions, lab: Lab) -> None:
    db.transact(sessions, lambda session: labs.enable(session, session.get_one(Lab, lab.id)))


def test_a_disabled_lab_is_refused_everything_until_it_is_enabled(
    app: APIFlask, client: FlaskClient, browser: Browser, sessions: db.Sessions, lab: Lab, token: str
) -> None:
    batch = api.create(client)
    disable(sessions, lab)
    for one in (client, browser.client):
        api.assert_problem(one.get(api.BATCHES), 403, "lab_disabled")
        api.assert_problem(one.delete(api.url(batch)), 403, "lab_disabled")
    page = browser.client.get("/")
    assert page.status_code == 403 and "disabled this lab" in page.text
    refused = app.test_client().post("/sign-in", data={"csrf_token": "", "token": token})
    assert refused.status_code == 400  # no CSRF token, which says nothing about the lab
    browser.sign_out()
    assert rows(sessions) == 0
    with pytest.raises(AssertionError, match="disabled this lab"):
        Browser(app, token)
    enable(sessions, lab)
    assert api.status(client, batch)["state"] == "open"


def test_the_work_of_a_disabled_lab_waits(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    lab: Lab,
    bundle: bundles.Bundle,
    client: FlaskClient,
    wakeups: fakes.Wakeups,
) -> None:
    who = scenarios.claimant(sessions, bundle)
    batch = fakes.create(sessions, lab, bundle)
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(6))
    client.put(f"{api.BATCHES}/{batch.id}/archive", data=samples.archive({"z.jpg": samples.jpeg(99)}))
    running = db.transact(sessions, claims.take, who, 4)
    assert running is not None
    disable(sessions, lab)
    assert db.transact(sessions, claims.record, running.token, scenarios.predictions(running.images, who)) > 0
    assert scenarios.take_next(sessions, who) is None
    assert db.transact(sessions, archive_claims.take, "w", 60.0) is None
    assert db.read(sessions, claims.list_waiting_bundles) == []
    wakeups.sent.clear()
    Reaper(settings, sessions, blobs, wakeups).wake()  # type: ignore[arg-type]
    assert wakeups.sent == []
    enable(sessions, lab)
    Reaper(settings, sessions, blobs, wakeups).wake()  # type: ignore[arg-type]
    assert set(wakeups.sent) == set(Queue)
    assert scenarios.take_next(sessions, who) is not None
    assert db.transact(sessions, archive_claims.take, "w", 60.0) is not None


def test_guesses_are_slowed_down_and_a_right_secret_never_is(app: APIFlask, token: str) -> None:
    stopped = WrongSignIns(lambda: 1000.0)  # a clock that does not go on, however slow this machine is
    services.attach(app, replace(app.extensions[services.EXTENSION], wrong_sign_ins=stopped))
    guesser = app.test_client()
    for _ in range(FREE_ATTEMPTS):
        wrong = guesser.get(api.BATCHES, headers={"Authorization": "Bearer dermq_" + "x" * 43})
        api.assert_problem(wrong, 401, "bad_token")
    slowed = guesser.get(api.BATCHES, headers={"Authorization": "Bearer dermq_" + "x" * 43})
    api.assert_problem(slowed, 429, "too_many_wrong_secrets")
    assert slowed.headers["Retry-After"] == "1"
    assert with_token(app, token).get(api.BATCHES).status_code == 200
    assert Browser(app, token).client.get("/").status_code == 200
    form = guesser.get(f"/sign-in?code={'x' * 22}")
    assert (form.status_code, form.headers["Retry-After"]) == (429, "1")
    assert "sent many wrong ones" in form.text
    elsewhere = guesser.get(api.BATCHES, headers={"Authorization": "Bearer x"}, environ_base={"REMOTE_ADDR": "9.9.9.9"})
    assert elsewhere.status_code == 401


def test_a_right_code_signs_in_while_others_guess(app: APIFlask, sessions: db.Sessions, token: str) -> None:
    for _ in range(FREE_ATTEMPTS + 5):
        app.test_client().get(f"/sign-in?code={uuid.uuid4().hex[:22]}")
    stood_on = db.read(sessions, access_tokens.authenticate, token)
    code = db.transact(sessions, sign_in_codes.issue, stood_on)
    assert app.test_client().get(f"/sign-in?code={code}").status_code == 302


def test_a_wrong_code_takes_no_transaction_that_writes(
    app: APIFlask, sessions: db.Sessions, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*ignored: object, **also: object) -> None:
        raise AssertionError("a guess took a transaction that writes")

    monkeypatch.setattr(db, "transact", written)
    for code in ("x", "x" * 22, "ü" * 22, "x" * 5_000):
        assert app.test_client().get("/sign-in", query_string={"code": code}).status_code == 401


def test_secrets_have_at_least_128_random_bits(sessions: db.Sessions, token: str, settings: Settings) -> None:
    stood_on = db.read(sessions, access_tokens.authenticate, token)
    code = db.transact(sessions, sign_in_codes.issue, stood_on)
    secret = db.transact(sessions, browser_sessions.begin, stood_on, browser_sessions.Visitor("", ""), settings)
    alphabet_bits = 6  # of URL-safe Base64
    for one in (code, secret, token.removeprefix(access_tokens.PREFIX)):
        assert len(one) * alphabet_bits >= 128
    assert db.read(sessions, lambda session: session.scalar(sa.select(sa.func.count()).select_from(SignInCode))) == 1


def test_the_page_of_the_lab_shows_sessions_and_tokens(browser: Browser, stranger: FlaskClient) -> None:
    page = browser.client.get("/lab").text
    assert "Firefox on Linux" in page and "this browser" in page
    assert "look, submit images and cancel, retry, delete and manage the lab" in page
    assert "dermq_" not in page


def test_the_page_of_the_lab_shows_no_token_to_who_may_not_manage(
    app: APIFlask, sessions: db.Sessions, lab: Lab, token: str
) -> None:
    page = Browser(app, issue(sessions, lab, Scope.READ)).client.get("/lab")
    assert page.status_code == 200
    assert "Access tokens" not in page.text and "Firefox" not in page.text


def test_pages_offer_only_what_the_token_may_do(
    app: APIFlask, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle, browser: Browser
) -> None:
    batch = fakes.create(sessions, lab, bundle)
    address = f"/batches/{batch.id}"
    whole = browser.client.get("/").text + browser.client.get(address).text
    for words in ("Drop images", "Finish upload", "Delete for good", "Add more files"):
        assert words in whole
    reader = Browser(app, issue(sessions, lab, Scope.READ)).client
    seen = reader.get("/").text + reader.get(address).text
    assert "data-call" not in seen and "data-drop" not in seen
