"""``make docs-site``: all documents of the repository as one site, without anything from another host.

MkDocs reads one folder, and the documents stand where their readers look for them. So they are gathered in a folder
that has the same layout; a link that works in the repository works on the site. A dead link or anchor ends the build.
"""

import logging
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.commands import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from dermq.settings import ROOT

_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "training/README.md")
_FILES = ("LICENSE",)
_DECISIONS = "docs/adr/README.md"


def write(target: Path, root: Path = ROOT) -> None:
    """Build the site of ``root`` in ``target``. Raises ``mkdocs.exceptions.Abort`` for a dead link."""
    with tempfile.TemporaryDirectory(prefix="dermq-docs-") as name:
        folder = Path(name)
        _gather(root, folder)
        config = load_config(
            str(ROOT / "mkdocs.yml"), docs_dir=str(folder), site_dir=str(target.resolve()), nav=_navigation(folder)
        )
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build.build(config)
        finally:
            config.plugins.on_shutdown()


def _gather(root: Path, folder: Path) -> None:
    pages = [root / name for name in _PAGES] + sorted((root / "docs").rglob("*.md"))
    cards = sorted((root / "bundles").glob("*/card.json"))
    for path in [*pages, *(root / name for name in _FILES), *cards, *sorted((root / "docs" / "figures").glob("*.png"))]:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    decisions = [path for path in sorted((folder / "docs" / "adr").glob("*.md")) if path.name != "README.md"]
    listed = "\n".join(f"- [{_title(path)}]({path.name})" for path in decisions)
    (folder / _DECISIONS).write_text(f"# Decisions\n\nWhy things are as they are.\n\n{listed}\n")
    for path in folder.rglob("*.md"):  # a folder is no page: its list is
        path.write_text(re.sub(r"\]\(((?:\.\./)*docs/adr)\)", r"](\1/README.md)", path.read_text()))


def _navigation(folder: Path) -> list[Any]:
    guides = [path.relative_to(folder).as_posix() for path in sorted((folder / "docs").glob("*.md"))]
    decisions = [path.relative_to(folder).as_posix() for path in sorted((folder / "docs" / "adr").glob("[0-9]*.md"))]
    return [
        {"Start": "README.md"},
        *({_title(folder / name): name} for name in guides),
        {"Architecture": "ARCHITECTURE.md"},
        {"Decisions": [_DECISIONS, *decisions]},
        {"Training": "training/README.md"},
        {"Figures": "docs/figures/README.md"},
        {"Contributing": "CONTRIBUTING.md"},
        {"Changes": "CHANGELOG.md"},
    ]


def _title(path: Path) -> str:
    return path.read_text().splitlines()[0].lstrip("# ")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        write(Path(sys.argv[1]))
    except Abort as err:
        sys.exit(str(err))
