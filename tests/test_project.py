"""The documents match the repository, and the repository holds no file that must not be tracked."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from dermq import bundles, taxonomy
from dermq.settings import ROOT, Settings
from docs import settings_page
from tests.chaos.faults import FAULTS
from web.reports import registry

_MAX_BYTES = 50_000_000
_TOOLS = r"ruff format|ruff check|mypy|lint-imports"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Return every tracked file."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    assert settings_page.PAGE.read_text() == settings_page.render(), "run: make docs"


def test_make_commands_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for path in DOCUMENTS for word in re.findall(r"(?:^|[`\s])make ([a-z][a-z-]*)`?", _commands(path))}
    assert {"run", "test", "check"} <= named <= targets


def test_make_help_names_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())  # type: ignore[index]
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))


def test_settings_named_in_documents_exist() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"\bDERMQ_[A-Z_]*[A-Z]", path.read_text())}
    known = {f"DERMQ_{name.upper()}" for name in Settings.model_fields}
    assert named - known <= {"DERMQ_TEST_POSTGRES_URL", "DERMQ_CI_PUBLIC"}


def test_every_report_format_is_documented() -> None:
    rows = [f"| `report.{one.ending}` | {one.name} | {', '.join(one.columns)} |" for one in registry.FORMATS]
    document = (ROOT / "docs" / "api.md").read_text()
    assert rows == re.findall(r"^\| `report\..*", document, re.M), "write these rows into docs/api.md"


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)#]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def test_every_test_that_the_security_document_names_exists() -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs" / "security.md").read_text(), re.M)
    defences = [row for row in rows if not re.match(r"\| threat|\|-", row)]
    named = {reference for row in defences for reference in re.findall(r"`(tests/[^`]+)`", row)}
    assert [row for row in defences if "`tests/" not in row and "`make " not in row] == []
    assert len(named) > 40
    assert [reference for reference in sorted(named) if not _has_test(reference)] == []


def test_imports_are_as_drawn() -> None:
    # import-linter runs in a process of its own, because it configures the logging of its process.
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout


def test_bundles_know_the_diagnoses_in_our_order() -> None:
    for bundle in bundles.list_installed(ROOT / "bundles"):
        assert bundle.card.classes == taxonomy.CODES
    assert bundles.find_current(ROOT / "bundles").path.is_dir()


def test_every_bundle_that_a_version_shipped_is_still_here() -> None:
    # A batch keeps the bundle with which it was created: without the folder it would wait for ever after an upgrade.
    shipped = re.findall(r"The bundle is `([\w-]+)`\s+version\s+(\w+)", (ROOT / "CHANGELOG.md").read_text())
    for name, version in shipped:
        bundles.verify_files(bundles.read(ROOT / "bundles" / f"{name}-{version}"))
    current = bundles.find_current(ROOT / "bundles")
    assert (current.name, current.version) in shipped, "CHANGELOG.md must say: The bundle is `NAME` version N"


def test_diagnoses_are_in_alphabetical_order() -> None:
    assert list(taxonomy.CODES) == sorted(taxonomy.CODES) == sorted(taxonomy.ISIC_CODES)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_have_hashes_and_no_addresses(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    packages = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, re.M | re.S)
    assert packages and all("==" in package and "--hash=sha256:" in package for package in packages)


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    for name in {"web", "cpu", "gpu", "local", "training", "dev", "hostile"}:
        locked = set(re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.M))
        wanted = [*project["project"]["dependencies"], *(word for word in groups[name] if isinstance(word, str))]
        assert {re.match(r"[A-Za-z0-9-]+", word)[0].lower() for word in wanted} <= locked, "run: make lock"  # type: ignore[index]


def test_all_locks_agree_on_versions() -> None:
    found: dict[str, set[frozenset[str]]] = {}
    for path in LOCKS:
        versions: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.M):
            versions.setdefault(name, set()).add(version)  # several versions where Python 3.11 needs an older one
        for name, of_one_lock in versions.items():
            found.setdefault(name, set()).add(frozenset(of_one_lock))
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


def test_no_large_file_is_tracked(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.stat().st_size > _MAX_BYTES] == []


def test_no_dataset_image_and_no_secret_is_tracked(tracked: list[Path]) -> None:
    forbidden = re.compile(r"ISIC_\d{7}\.\w+$|\.(zip|sqlite3|pem|key)$|^\.env$|^(local|metrics)-token$|^session-key$")
    assert [path for path in tracked if forbidden.search(path.name)] == []


def test_the_layout_names_every_module_of_the_domain_and_every_package(tracked: list[Path]) -> None:
    layout = (ROOT / "ARCHITECTURE.md").read_text().split("## Layout")[1].split("```")[1]
    modules = {path.name for path in (ROOT / "dermq").glob("*.py")} - {"__init__.py"}
    packages = {
        f"{path.parent.name}/" for top in ("dermq", "web", "worker") for path in ROOT.glob(f"{top}/*/__init__.py")
    }
    named = set(re.findall(r"[a-z_]+(?:\.py|/)", layout))
    assert modules | packages <= named, sorted((modules | packages) - named)
    assert {name for name in named if name.endswith(".py")} <= {path.name for path in tracked}


def test_every_promise_to_operators_names_its_rows_of_chaos() -> None:
    importlib.import_module("tests.chaos.__main__")  # registers all rows
    text = (ROOT / "docs" / "operating.md").read_text()
    table = text.split("| promise | rows of `make chaos` |\n|---|---|\n")[1].split("\n\n")[0]
    cells = [line.split("|")[2].strip() for line in table.splitlines()]
    assert cells[0] == "every whole system, in the checks at its end" and cells[-1] == "(tests/integration)"
    named = [name for cell in cells[1:-1] for name in cell.split("; ")]
    assert sorted(named) == sorted(fault.name for fault in FAULTS)


def test_ci_runs_the_commands_of_a_contributor() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = set(re.findall(r"\bstep make ([\w-]+)", script.read_text()))
    assert steps == {"check", "test", "test-training", "chaos-short"}


def test_hooks_run_the_tools_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]  # type: ignore[index]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # otherwise the versions would not be those of the lock file
    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    assert all(entry.startswith(".venv/bin/python ") for entry in entries)
    assert set(re.findall(_TOOLS, " ".join(entries))) == set(re.findall(_TOOLS, recipe)) != set()


def test_the_public_workflow_calls_the_script_of_everybody() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    workflow = yaml.safe_load(text)
    workflow["on"] = workflow.pop(True)  # YAML 1.1 reads the key `on` as True
    jsonschema.Draft7Validator(json.loads(schema.read_text())).validate(workflow)
    assert re.search(r"- run: \.ci/run --public$", text, re.M)


def test_research_only_stands_where_people_begin() -> None:
    assert taxonomy.NOTICE in (ROOT / "README.md").read_text()


def test_figures_in_the_readme_are_those_of_the_card() -> None:
    readme = (ROOT / "README.md").read_text()
    card = bundles.find_current(ROOT / "bundles").card
    test = card.metrics["test"]
    assert f"Bundle `{card.name}`, version {card.version}" in readme
    text = " ".join(readme.split())
    assert f"accuracy {test.accuracy:.3f}, balanced accuracy {test.balanced_accuracy:.3f}" in text
    assert f"macro F1 {test.macro_f1:.3f}, expected calibration error {test.expected_calibration_error:.3f}" in text
    assert f"AUROC of {card.out_of_distribution.auroc:.3f}" in text
    for diagnosis in taxonomy.DIAGNOSES:
        recall, precision = test.recall[diagnosis.code], test.precision[diagnosis.code]
        row = rf"\| {diagnosis.code} \| {diagnosis.name} \|.*\| {recall:.2f} \| {precision:.2f} \|"
        assert re.search(row, readme), diagnosis.code


def _commands(path: Path) -> str:
    """Return the text of a document's code spans and code blocks."""
    text = path.read_text()
    blocks = re.findall(r"```.*?```", text, re.S)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.S))])


def _has_test(reference: str) -> bool:
    """Return whether ``tests/file.py`` exists, or has the test of ``tests/file.py::test``."""
    path, _, name = reference.partition("::")
    return (ROOT / path).is_file() and (not name or f"def {name}(" in (ROOT / path).read_text())
