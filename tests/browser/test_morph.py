"""The refresh of a page in place: the result equals the new page, and unchanged elements keep their nodes."""

import random

from playwright.sync_api import Page

from tests.browser.conftest import System

ROUNDS = 300
_MORPH = """
async (pairs) => {
  const { morph } = await import("/static/js/morph.js");
  const wrong = [];
  for (const [before, after] of pairs) {
    const [from, to] = [before, after].map((html) => new DOMParser().parseFromString(html, "text/html").body);
    const rows = new Map([...from.querySelectorAll("[data-key]")].map((row) => [row.dataset.key, row]));
    morph(from, to);
    const isKept = [...from.querySelectorAll("[data-key]")].every(
      (row) => !rows.has(row.dataset.key) || rows.get(row.dataset.key) === row,
    );
    if (from.innerHTML !== after || !isKept) wrong.push([before, after, from.innerHTML]);
  }
  return wrong;
}
"""


def test_a_refresh_makes_any_list_equal_and_keeps_its_rows(page: Page, web_alone: System) -> None:
    page.goto(f"{web_alone.url}/sign-in")
    draw = random.Random(1)
    pairs = [[_page(draw), _page(draw)] for _ in range(ROUNDS)]
    assert page.evaluate(_MORPH, pairs) == []


def _page(draw: random.Random) -> str:
    """Return a list of rows, some with a key, with or without whitespace between them."""
    keys = draw.sample(range(6), draw.randint(0, 6))
    rows = [f'<p data-key="{key}" class="{draw.choice("ab")}">{draw.choice(("x", "<b>y</b>"))}</p>' for key in keys]
    for _ in range(draw.randint(0, 3)):
        rows.insert(draw.randint(0, len(rows)), draw.choice(("<i>z</i>", '<p title="t">w</p>', "text")))
    between = draw.choice(("", "\n "))
    return f"<ul>{between.join(rows)}</ul>{between}"
