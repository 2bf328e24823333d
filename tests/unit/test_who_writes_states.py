"""Nobody but ``dermq.transitions`` writes a state or a count: held over the syntax tree of every program."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dermq.settings import ROOT

TABLES = {"Image", "Archive", "Batch"}
COLUMNS = {
    *("state", "finished_at", "version"),
    *("received", "queued", "running", "done", "failed", "cancelled", "refused", "archives_open"),
}
WRITER = ROOT / "dermq" / "transitions.py"
ALLOWED = {
    # An archive counts what its own entries came to, in columns that are called like counts of its batch.
    ("worker/intake/unpack.py", "writes archive.received"),
    ("worker/intake/unpack.py", "writes archive.refused"),
}
MODULES = sorted(path for name in ("dermq", "web", "worker") for path in (ROOT / name).rglob("*.py") if path != WRITER)
_OPAQUE = {"__setattr__", "set_attribute", "set_committed_value", "vars", "eval", "exec"}
_BULK = {"bulk_insert_mappings", "bulk_update_mappings", "bulk_save_objects", "query"}
_SQL = re.compile(r"\b(update|insert\s+into|delete\s+from)\s+\"?(image|archive|batch)\b", re.I)


def breaches(source: str) -> set[str]:
    """What a module does that only ``dermq.transitions`` may do; what cannot be judged counts as done."""
    return {found for node in ast.walk(ast.parse(source)) for found in _breaches(node)}


def _breaches(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()) if name in COLUMNS:
            yield f"writes {ast.unparse(node)}"
        case ast.Subscript(slice=key, ctx=ast.Store() | ast.Del()):
            if _is_column(key) or "__dict__" in ast.unparse(node.value):
                yield f"writes {ast.unparse(node)}"
        case ast.alias(name=name, asname=str()) if name in TABLES:
            yield f"gives {name} another name"
        case ast.Constant(value=str(text)) if _SQL.search(text):
            yield "writes SQL of its own"
        case ast.Call():
            yield from _calls(node)


def _calls(call: ast.Call) -> Iterator[str]:
    name = _name(call.func)
    on_table = any(_name(part) in TABLES for given in call.args[:1] for part in ast.walk(given))
    if name == "setattr" and not (isinstance(call.args[1], ast.Constant) and call.args[1].value not in COLUMNS):
        yield "calls setattr"
    elif name in _OPAQUE | _BULK:
        yield f"calls {name}"
    elif name in TABLES and (name != "Batch" or _writes(call)):
        yield f"makes an {name}"
    elif name in {"insert", "delete"} and (on_table or "__table__" in ast.unparse(call.func)):
        yield f"calls {name} on a table"
    elif name == "delete" and ast.unparse(call.func).startswith("session."):
        yield "deletes a row"
    elif name == "update" and "__table__" in ast.unparse(call.func):
        yield "calls update on a table"
    elif name == "values" and _root(call) in {"Batch", "Image", "Archive", ""} and _writes(call):
        yield "calls values"
    elif name == "execute" and len(call.args) > 1 and re.search(rf"update\(.*({'|'.join(TABLES)})", _text(call)):
        yield "updates by a list of rows"


def _writes(call: ast.Call) -> bool:
    """Whether keywords or rows of a call may hold a column of ours."""
    keywords = any(keyword.arg is None or keyword.arg in COLUMNS for keyword in call.keywords)
    return keywords or any(
        not isinstance(row, ast.Dict) or any(key is None or _is_column(key) for key in row.keys) for row in call.args
    )


def _root(call: ast.Call) -> str:
    """Return the table that a chain of calls begins with, as ``Claim`` in ``sa.update(Claim).values(…)``, or ""."""
    node: ast.AST = call
    while isinstance(node, ast.Call | ast.Attribute):
        if isinstance(node, ast.Call) and _name(node.func) in {"update", "insert"}:
            named = {_name(part) for given in node.args for part in ast.walk(given)}
            return next(iter(named & TABLES), next((name for name in named if name[:1].isupper()), ""))
        node = node.func if isinstance(node, ast.Call) else node.value
    return ""


def _is_column(key: ast.AST) -> bool:
    return (isinstance(key, ast.Constant) and key.value in COLUMNS) or _name(key) in COLUMNS


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(call: ast.Call) -> str:
    return ast.unparse(call.args[0])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_writes_a_state_or_a_count(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    assert {found for found in breaches(path.read_text()) if (where, found) not in ALLOWED} == set()


def test_the_module_that_writes_them_is_seen_to() -> None:
    assert breaches(WRITER.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "batch.queued += 1",
        "image.state = ImageState.DONE",
        "batch.finished_at: datetime | None = None",
        "batch.done, batch.failed = 1, 2",
        "for batch.done in range(3): pass",
        "with count() as batch.done: pass",
        "del batch.state",
        "setattr(batch, 'queued', 3)",
        "setattr(batch, name, 3)",
        "setattr(batch, state.value, 3)",
        "object.__setattr__(batch, 'queued', 3)",
        "batch.__setattr__('queued', 3)",
        "batch.__dict__[name] = 3",
        "vars(batch).update(queued=3)",
        "attributes.set_committed_value(batch, 'queued', 3)",
        "sa.update(Image).where(Image.id == 1).values(state='done')",
        "sa.update(Batch).values(finished_at=now)",
        "sa.update(Batch).values(**columns)",
        "sa.update(Batch).values(columns)",
        "sa.update(Batch).values({'queued': 0})",
        "sa.update(Batch).values({Batch.queued: Batch.queued + 1})",
        "sa.update(models.Archive).values(state='done')",
        "sa.update(table).values(state='done')",
        "Batch.__table__.update().values(queued=1)",
        "sa.update(Batch.__table__).values(queued=1)",
        "session.execute(sa.update(Image), [{'id': 1, 'state': 'done'}])",
        "session.execute(sa.insert(Image), rows)",
        "sa.insert(Archive).values(id=1)",
        "insert(models.Image)",
        "session.add(Image(batch_id=1))",
        "session.add(Archive(state='stored'))",
        "session.add(Batch(queued=1))",
        "session.add(Batch(**columns))",
        "row['state'] = 'done'",
        "sa.delete(Image).where(Image.id == 1)",
        "session.delete(archive)",
        "session.bulk_update_mappings(Image, rows)",
        "session.query(Image).update({'state': 'done'})",
        "from dermq.models import Image as Picture",
        "session.execute(sa.text('UPDATE batch SET queued = 0'))",
        "session.execute(sa.text(f'INSERT INTO image ({columns}) VALUES (1)'))",
    ],
)
def test_each_form_of_writing_is_seen(source: str) -> None:
    assert breaches(source)


@pytest.mark.parametrize(
    "source",
    [
        "batch.name = 'x'",
        "shown = {'state': batch.state, 'queued': batch.queued}",
        "sa.update(Archive).where(Archive.state == 'receiving').values(touched_at=now)",
        "sa.update(Worker).values(**signs)",
        "sa.insert(Claim).values(token=token)",
        "sa.delete(Claim).where(~sa.exists().where(Image.claim_token == token))",
        "Batch(id=1, name='x')",
        "labs.values()",
        "setattr(error, 'code', 1)",
        "if batch.state == 'done': pass",
        "blobs.delete(batch_id)",
    ],
)
def test_what_writes_neither_is_let_be(source: str) -> None:
    assert breaches(source) == set()
