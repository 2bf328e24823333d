"""Writes ``docs/settings.md`` from ``dermq/settings.py``: ``make docs``."""

from pathlib import Path

from pydantic.fields import FieldInfo

from dermq.settings import ROOT, Settings

PAGE = Path(__file__).with_name("settings.md")
_INTRODUCTION = """\
# Settings

Written by `make docs` from `dermq/settings.py`; do not edit. Every setting is an environment variable, read once when
a program starts. All programs of one installation need the same values.

| variable | default | meaning |
|---|---|---|
"""


def render() -> str:
    """Return the page, with a row for each setting."""
    return _INTRODUCTION + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split())
    return f"| `DERMQ_{name.upper()}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, Path):
        value = value.relative_to(ROOT)
    return "unset" if value in (None, "") else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
