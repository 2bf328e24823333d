"""The documents as a site: whole, without a dead link, and without anything from another host."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
from mkdocs.exceptions import Abort

from dermq import db
from dermq.settings import ROOT
from docs import site

_LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """What a page loads, where it links to and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.anchors = set[str](), set[str](), set[str]()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif tag == "a" and name == "href" and value:
                self.links.add(value)
            elif (tag, name) in _LOADS and value and dict(attrs).get("rel") not in _NOT_LOADED:
                self.loads.add(value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    site.write(folder)
    return folder


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(built.rglob("*.html")) if path.name != "404.html"}


def test_every_document_is_a_page(built: Path, pages: dict[Path, Page]) -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "training" / "README.md"]
    wanted = {built / path.relative_to(ROOT).with_suffix(".html") for path in documents}
    wanted = {path.with_name("index.html") if path.name == "README.html" else path for path in wanted}
    assert wanted <= set(pages)


def test_nothing_is_loaded_from_another_host(built: Path, pages: dict[Path, Page]) -> None:
    assert {url for page in pages.values() for url in page.loads if re.match(r"(https?:)?//", url)} == set()
    styles = "".join(path.read_text() for path in built.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import\s*)['\"]?(?:https?:)?//", styles) == []


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    assert sorted(_dead(pages)) == []


@pytest.mark.parametrize("link", ["[gone](docs/gone.md)", "[gone](ARCHITECTURE.md#gone)"])
def test_a_dead_link_ends_the_build(tmp_path: Path, link: str) -> None:
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "docs", root / "docs")
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copyfile(ROOT / name, root / name)
    for path in [ROOT / "training" / "README.md", *(ROOT / "bundles").glob("*/card.json")]:
        (root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / path.relative_to(ROOT))
    readme = (ROOT / "README.md").read_text()
    (root / "README.md").write_text(readme)
    site.write(tmp_path / "whole", root)
    (root / "README.md").write_text(f"{readme}\n{link}\n")
    with pytest.raises(Abort):
        site.write(tmp_path / "broken", root)


def test_statements_in_documents_fit_the_tables(sessions: db.Sessions) -> None:
    """To be copied into a database by who looks for an error."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    statements = [line for line in "".join(blocks).splitlines() if line]
    assert len(statements) == 4
    for statement in statements:
        assert db.read(sessions, lambda session, text=statement: session.execute(sa.text(text)).all()) == []


def _dead(pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in page.links | page.loads:
            if re.match(r"[a-z]+:|//", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                yield f"{path.name}: {link}"
