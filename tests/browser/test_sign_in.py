"""Signing in and out, and the notice on every page."""

import pytest
from playwright.sync_api import Browser, Page, expect

from dermq import taxonomy
from tests.browser.conftest import System, Watched


def test_a_token_signs_in_and_a_press_signs_out(page: Page, web_alone: System) -> None:
    page.goto(web_alone.url)
    page.get_by_label("Access token").fill(web_alone.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Drop images")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_link_signs_in_once(page: Page, web_alone: System, watched: Watched) -> None:
    link = web_alone.sign_in_link()
    page.goto(link)
    expect(page.get_by_role("heading", name="Drop images")).to_be_visible()
    page.goto(f"{web_alone.url}/diagnoses")  # which does not refresh itself and so does not leave by itself
    page.context.clear_cookies()
    watched.expected.append("401")
    page.goto(link)
    expect(page.get_by_role("alert")).to_contain_text("used already")


def test_a_cookie_that_was_copied_is_worthless_after_signing_out(
    signed_in_alone: Page, browser: Browser, web_alone: System
) -> None:
    copied = browser.new_context(storage_state=signed_in_alone.context.storage_state())
    try:
        thief = copied.new_page()
        thief.goto(web_alone.url)
        expect(thief.get_by_role("heading", name="Drop images")).to_be_visible()
        signed_in_alone.get_by_role("button", name="Sign out").click()
        expect(signed_in_alone.get_by_role("heading", name="Sign in")).to_be_visible()
        thief.goto(web_alone.url)
        expect(thief.get_by_role("heading", name="Sign in")).to_be_visible()
        assert thief.request.get(f"{web_alone.url}/api/v1/batches").status == 401
    finally:
        copied.close()


def test_a_browser_signs_out_another(signed_in_alone: Page, browser: Browser, web_alone: System) -> None:
    elsewhere = browser.new_context(user_agent="Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/143.0")
    try:
        other = elsewhere.new_page()
        other.goto(web_alone.sign_in_link())
        signed_in_alone.get_by_role("link", name="lab", exact=True).click()
        row = signed_in_alone.get_by_role("row").filter(has_text="Firefox on Windows")
        row.get_by_role("button", name="Sign out Firefox on Windows").click()
        expect(row).to_have_count(0)
        expect(signed_in_alone.get_by_text("this browser")).to_be_visible()
        other.goto(web_alone.url)
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    finally:
        elsewhere.close()


PAGES = ["/", "/diagnoses", "/bundle", "/guide", "/lab", "/api/docs", "/sign-in", "/no-such-page"]


@pytest.mark.parametrize("path", PAGES)
def test_the_notice_is_on_every_page(signed_in_alone: Page, web_alone: System, watched: Watched, path: str) -> None:
    watched.expected.append("404")
    signed_in_alone.goto(web_alone.url + path)
    expect(signed_in_alone.get_by_role("note")).to_have_text(taxonomy.NOTICE)
    expect(signed_in_alone.get_by_role("note")).to_be_visible()
