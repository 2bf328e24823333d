"""The pages as a browser gets them: access, content, and the cost of a refresh."""

import re
import uuid

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from markupsafe import escape
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from dermq import access_tokens, db, labs, sign_in_codes, taxonomy
from dermq.bundles import Bundle
from dermq.models import Batch, Image, Lab
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import fakes, samples
from web.pages import routes

EVERY_PAGE = [*(address for address, _, _ in routes.PAGES if "<" not in address), "/api/docs", "/no-such-page"]


@pytest.fixture
def visitor(app: APIFlask) -> FlaskClient:
    """A browser that is not signed in."""
    client: FlaskClient = app.test_client()
    return client


@pytest.fixture
def browser(visitor: FlaskClient, token: str) -> FlaskClient:
    """A browser that is signed in."""
    assert sign_in(visitor, token).status_code == 302
    return visitor


@pytest.fixture
def batch(sessions: db.Sessions, blobs: LocalStore, settings: Settings, lab: Lab, bundle: Bundle) -> Batch:
    """A batch of two images that wait."""
    made = fakes.create(sessions, lab, bundle, name="<i>mine</i>")
    fakes.add(sessions, blobs, settings, made, {"<b>good.jpg": samples.jpeg(), "half.jpg": samples.truncated_jpeg()})
    return made


def csrf(client: FlaskClient) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/sign-in").text)
    assert found is not None
    return found[1]


def sign_in(client: FlaskClient, token: str, **fields: str) -> TestResponse:
    return client.post("/sign-in", data={"csrf_token": csrf(client), "token": token, **fields})


def sign_in_link(sessions: db.Sessions, lab: Lab) -> str:
    def issue(session: Session) -> str:
        return sign_in_codes.issue(session, access_tokens.list_all(session, lab.id)[0])

    return f"/sign-in?code={db.transact(sessions, issue)}"


@pytest.mark.parametrize("path", EVERY_PAGE)
def test_every_page_says_that_it_is_for_research_only(visitor: FlaskClient, token: str, path: str) -> None:
    if path not in ("/sign-in", "/no-such-page"):
        sign_in(visitor, token)
    assert str(escape(taxonomy.NOTICE)) in visitor.get(path).text


def test_who_is_not_signed_in_is_asked_to_and_comes_back(visitor: FlaskClient, token: str) -> None:
    asked = visitor.get("/?cursor=abc")
    assert (asked.status_code, asked.location) == (302, "/sign-in?next=/?cursor%3Dabc")
    assert sign_in(visitor, token, next="/diagnoses").location == "/diagnoses"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://example.org/",
        "//example.org",
        "/\\example.org",
        "javascript:alert(1)",
        "/\t/example.org",
        "/\n/example.org",
    ],
)
def test_signing_in_leads_to_no_other_site(visitor: FlaskClient, token: str, elsewhere: str) -> None:
    assert sign_in(visitor, token, next=elsewhere).location == "/"


def test_a_wrong_token_is_refused_with_the_reason(visitor: FlaskClient) -> None:
    answer = sign_in(visitor, "dermq_wrong")
    assert answer.status_code == 401
    assert "wrong or was revoked" in answer.text


def test_a_link_signs_in_once(app: APIFlask, sessions: db.Sessions, lab: Lab, token: str) -> None:
    link = sign_in_link(sessions, lab)
    first, second = app.test_client(), app.test_client()
    assert first.get(link).location == "/"
    assert first.get("/").status_code == 200
    assert first.get(link).location == "/"  # opened again by a browser that is signed in
    refused = second.get(link)
    assert refused.status_code == 401
    assert "used already" in refused.text


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_without_its_csrf_token_is_refused(browser: FlaskClient, token: str, path: str) -> None:
    assert browser.post(path, data={"token": token}).status_code == 400


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/no-such-page"])
def test_a_form_that_is_larger_than_any_of_a_page_is_not_read(visitor: FlaskClient, path: str) -> None:
    answer = visitor.post(path, data="a&" * 100_000, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 413


def test_signing_out_ends_the_session(browser: FlaskClient) -> None:
    browser.post("/sign-out", data={"csrf_token": csrf(browser)})
    assert browser.get("/").status_code == 302


def test_revoking_the_token_ends_the_session(browser: FlaskClient, sessions: db.Sessions, lab: Lab) -> None:
    [issued] = db.read(sessions, access_tokens.list_all, lab.id)
    db.transact(sessions, access_tokens.revoke, issued.id)
    assert browser.get("/").status_code == 302


def test_another_labs_batch_is_not_found(visitor: FlaskClient, sessions: db.Sessions, batch: Batch) -> None:
    other = db.transact(sessions, labs.add, "other lab")
    sign_in(visitor, db.transact(sessions, access_tokens.issue, other, "test"))
    theirs, none = visitor.get(f"/batches/{batch.id}"), visitor.get(f"/batches/{uuid.uuid4()}")
    assert (theirs.status_code, none.status_code) == (404, 404)
    assert "mine" not in visitor.get("/").text


def test_an_error_page_shows_who_is_signed_in(browser: FlaskClient) -> None:
    assert "Sign out" in browser.get("/no-such-page").text


def test_an_error_page_has_a_heading_for_a_lab_and_no_code(visitor: FlaskClient) -> None:
    page = visitor.get("/no-such-page").text
    assert "<h1>Not found</h1>" in page
    assert "404" not in page


def test_pages_show_why_an_image_failed_and_no_code(browser: FlaskClient, sessions: db.Sessions, batch: Batch) -> None:
    def fail(session: Session) -> None:
        values = {"error_code": "worker_lost", "error_detail": "The file is damaged."}
        session.execute(sa.update(Image).where(Image.batch_id == batch.id).values(**values))

    db.transact(sessions, fail)
    page = browser.get(f"/batches/{batch.id}").text
    assert "The file is damaged." in page
    assert "worker_lost" not in page


def test_a_broken_database_still_leaves_a_page(browser: FlaskClient, app: APIFlask, sessions: db.Sessions) -> None:
    with sessions.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE access_token RENAME TO lost"))
    app.testing = False
    answer = browser.get("/")
    assert answer.status_code >= 500
    assert str(escape(taxonomy.NOTICE)) in answer.text


def test_names_are_data_and_never_markup(browser: FlaskClient, batch: Batch) -> None:
    page = browser.get(f"/batches/{batch.id}").text
    assert "&lt;b&gt;good.jpg" in page
    assert "&lt;i&gt;mine&lt;/i&gt;" in page
    assert "<b>good" not in page
    assert "<i>mine" not in page + browser.get("/").text


def test_no_page_has_scripts_or_styles_of_its_own(browser: FlaskClient, batch: Batch) -> None:
    for path in ("/", f"/batches/{batch.id}", "/diagnoses", "/bundle", "/guide"):
        page = browser.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page), path


def test_a_refresh_costs_a_304_until_something_changes(
    browser: FlaskClient, sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch
) -> None:
    for path in ("/", f"/batches/{batch.id}", f"/batches/{batch.id}?state=failed"):
        known = {"If-None-Match": browser.get(path).headers["ETag"]}
        assert browser.get(path, headers=known).status_code == 304
        fakes.add(sessions, blobs, settings, batch, {f"{uuid.uuid4()}.jpg": samples.jpeg()})
        assert browser.get(path, headers=known).status_code == 200


def test_a_page_is_not_taken_for_another_of_the_same_batch(browser: FlaskClient, batch: Batch) -> None:
    known = {"If-None-Match": browser.get(f"/batches/{batch.id}").headers["ETag"]}
    for query in ("?state=failed", "?diagnosis=mel", "?state=queued"):
        assert browser.get(f"/batches/{batch.id}{query}", headers=known).status_code == 200


def test_images_are_filtered_and_paged(browser: FlaskClient, sessions: db.Sessions, batch: Batch) -> None:
    fakes.fill(sessions, batch, 60)
    page = browser.get(f"/batches/{batch.id}?state=queued").text
    assert page.count('<td class="picture">') == 50
    following = re.search(r'href="([^"]+)" rel="next"', page)
    assert following is not None
    assert browser.get(following[1].replace("&amp;", "&")).text.count('<td class="picture">') == 12
    assert "No image of this batch matches the filter" in browser.get(f"/batches/{batch.id}?diagnosis=mel").text


@pytest.mark.parametrize("query", ["state=lost", "diagnosis=flu", "cursor=%%%", "refused_after=%%%"])
def test_an_address_that_no_page_links_to_is_refused_with_a_page(
    browser: FlaskClient, batch: Batch, query: str
) -> None:
    answer = browser.get(f"/batches/{batch.id}?{query}")
    assert answer.status_code == 422
    assert answer.content_type.startswith("text/html")


def test_the_diagnoses_have_their_full_names_and_a_sentence(visitor: FlaskClient) -> None:
    page = visitor.get("/diagnoses").text
    for diagnosis in taxonomy.DIAGNOSES:
        assert str(escape(diagnosis.name)) in page
        assert str(escape(diagnosis.description)) in page


def test_the_bundles_page_shows_its_card(visitor: FlaskClient, bundle: Bundle) -> None:
    page = visitor.get("/bundle").text
    card = bundle.card
    for text in (card.limits, card.licence, card.citation, card.start_weights, bundle.sha256):
        assert str(escape(text)) in page
    assert f"{100 * card.metrics['test'].balanced_accuracy:.1f} %" in page


def test_the_guide_names_this_host(visitor: FlaskClient) -> None:
    assert "API=http://localhost/api/v1" in visitor.get("/guide").text


def test_nothing_that_somebody_saw_is_kept(
    app: APIFlask, client: FlaskClient, browser: FlaskClient, batch: Batch
) -> None:
    """Every address that can be read, with a token, with a session, and by a stranger."""
    values = {"batch_id": str(batch.id), "position": 1, "ending": "csv", "name": "x", "archive_id": str(batch.id)}
    seen = 0
    for rule in app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()) or rule.endpoint.endswith(("static", "send_asset")):
            continue
        address = str(rule.build({**values, "filename": "x"}, append_unknown=False)[1])
        for reader in (client, browser, app.test_client()):
            with reader.get(address) as answer:
                assert answer.headers["Cache-Control"] == "no-store", address
                seen += answer.status_code == 200
    assert seen > 20


def test_characters_that_are_not_seen_are_shown_as_escapes(
    browser: FlaskClient, sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch
) -> None:
    names = ["rtl\u202egpj.exe", "a\u200bzero.jpg", "line\u2028sep.jpg", "患者\u3000ソ.jpg"]
    fakes.add(sessions, blobs, settings, batch, {name: samples.jpeg(seed) for seed, name in enumerate(names)})
    shown = browser.get(f"/batches/{batch.id}").text
    assert "rtl\\u202egpj.exe" in shown and "a\\u200bzero.jpg" in shown and "line\\u2028sep.jpg" in shown
    assert "患者\u3000ソ.jpg" in shown
    assert not [character for character in "\u202e\u200b\u2028" if character in shown]
