"""``.ci/run`` with a fake ``make`` that prints what the real one may print."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dermq.settings import ROOT


def _run(
    folder: Path, said: str, *arguments: str, shared: bool = False, broken: str = ""
) -> "subprocess.CompletedProcess[str]":
    (folder / "clone" / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / "clone" / ".ci" / "run")
    if shared:
        (folder / "shared" / "ham10000").mkdir(parents=True)
    programs = folder / "bin"
    programs.mkdir()
    make = f'echo "made $1"; echo "{said}"; test "$1" != "{broken}"'
    for name, text in {"make": make, "apt-get": "true", "chromium": "true"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return subprocess.run(
        [folder / "clone" / ".ci" / "run", *arguments],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--public",)])
def test_nothing_skipped_is_green(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = _run(tmp_path, "10 passed", *arguments, shared=True)
    assert found.returncode == 0 and "All checks and tests passed" in found.stdout
    assert [line for line in found.stdout.splitlines() if line.startswith("made")] == [
        f"made {name}" for name in ("check", "test", "chaos-short", "test-training")
    ]


@pytest.mark.parametrize("step", ["check", "test", "chaos-short", "test-training"])
def test_a_step_that_fails_fails_the_run(tmp_path: Path, step: str) -> None:
    found = _run(tmp_path, "1 failed", shared=True, broken=step)
    assert found.returncode != 0 and "All checks and tests passed" not in found.stdout


def test_of_two_steps_side_by_side_both_are_shown_when_one_fails(tmp_path: Path) -> None:
    found = _run(tmp_path, "1 failed", shared=True, broken="chaos-short")
    assert "made chaos-short" in found.stdout and "made test-training" in found.stdout
    assert "make chaos-short failed." in found.stderr and "make test-training failed." not in found.stderr


def test_what_needs_the_shared_folder_may_be_skipped_in_public_and_is_listed(tmp_path: Path) -> None:
    found = _run(tmp_path, "SKIPPED [1] tests/a.py:1: needs ../shared", "--public")
    assert found.returncode == 0
    told = found.stdout.split("Skipped, because ../shared is missing:")[1]
    assert "tests/a.py:1" in told and "make chaos-short" in told


def test_it_may_not_be_skipped_otherwise(tmp_path: Path) -> None:
    assert _run(tmp_path, "SKIPPED [1] tests/a.py:1: needs ../shared").returncode == 1


def test_nothing_else_may_be_skipped_in_public(tmp_path: Path) -> None:
    assert _run(tmp_path, "SKIPPED [1] tests/a.py:1: Chromium is not here", "--public").returncode == 1


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    assert _run(tmp_path, "", "--pubic").returncode == 2
