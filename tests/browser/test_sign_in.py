"""Signing in and out, and what every page says."""

import pytest
from playwright.sync_api import Page, expect

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
    page.context.clear_cookies()
    watched.expected.append("401")
    page.goto(link)
    expect(page.get_by_role("alert")).to_contain_text("used already")


@pytest.mark.parametrize("path", ["/", "/diagnoses", "/bundle", "/guide", "/api/docs", "/sign-in", "/no-such-page"])
def test_the_notice_is_on_every_page(signed_in_alone: Page, web_alone: System, watched: Watched, path: str) -> None:
    watched.expected.append("404")
    signed_in_alone.goto(web_alone.url + path)
    expect(signed_in_alone.get_by_role("note")).to_have_text(taxonomy.NOTICE)
    expect(signed_in_alone.get_by_role("note")).to_be_visible()
