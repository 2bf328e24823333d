"""The parts of ``make containers`` that need no container: what it reads from the machine, and what it compares."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermq.settings import ROOT
from tests.containers import __main__ as story
from tests.containers import building, confinement, engine, standins

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_options_of_pip_become_one_file_in_which_variables_win() -> None:
    lines = [":env:.cert='/certs/mine.pem'", "global.cert='/certs/all.pem'", "install.find-links='\\n/wheels\\n/more'"]
    assert engine.merge_pip_options(lines) == {
        "global": {"cert": "/certs/mine.pem"},
        "install": {"find-links": "/wheels /more"},
    }


def test_a_build_is_given_what_options_of_pip_name() -> None:
    options = {"global": {"index-url": "file:///index/simple https://host/simple", "cert": "/certs/all.pem"}}
    assert engine.find_paths(options) == {Path("/index"), Path("/certs/all.pem")}


def test_a_folder_within_another_is_not_mounted_twice() -> None:
    assert engine.keep_outermost(map(Path, ("/a", "/a/b/c", "/ab"))) == {Path("/a"), Path("/ab")}


@pytest.mark.parametrize("kind", ["run", "create"])
def test_the_wrapper_adds_the_limit_of_processes_that_podman_compose_leaves_out(tmp_path: Path, kind: str) -> None:
    called = _call_wrapper(tmp_path, kind, "--name=dermq_worker-cpu_1", "--init", "image")
    assert called[:2] == ["--root", kind]
    assert called[-4:] == ["7", "--name=dermq_worker-cpu_1", "--init", "image"]
    assert called[called.index("--pids-limit") + 1] == "7"


def test_the_wrapper_leaves_other_commands_and_services_without_a_limit_alone(tmp_path: Path) -> None:
    assert _call_wrapper(tmp_path, "ps", "-a") == ["--root", "ps", "-a"]
    assert "--pids-limit" not in _call_wrapper(tmp_path, "run", "--name=dermq_web_1")


def _call_wrapper(folder: Path, *arguments: str) -> list[str]:
    """Return the arguments that podman gets when the wrapper is called with ``arguments``."""
    podman, wrapper = folder / "podman", folder / "wrapper"
    podman.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    wrapper.write_text(engine.write_wrapper(["--root"], {"worker-cpu": 7}))
    for program in (podman, wrapper):
        program.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([wrapper, *arguments], env=environment, capture_output=True, check=True)
    called: list[str] = json.loads(done.stdout)
    return called


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine, "PACKAGES", {"sh": "dash", "no-such-program": "its-package"})
    assert engine.missing() == "these packages are needed: apt-get install its-package"


def test_another_user_than_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert engine.missing() == "root is needed"


def test_the_packages_that_are_needed_are_those_of_the_document() -> None:
    document = (ROOT / "docs" / "operating.md").read_text()
    named = building.find_command(document, "mmdebstrap").removeprefix("apt-get install ").split()
    assert set(named) == set(engine.PACKAGES.values())


def test_the_images_that_are_pinned_are_those_that_are_stood_in_for() -> None:
    command = building.find_command((ROOT / "docs" / "operating.md").read_text(), "RepoDigests")
    pairs = dict(pair.split("=") for pair in command.split("in ", 1)[1].split(";")[0].split())
    assert {f"docker.io/library/{image}" for image in pairs.values()} == set(standins.IMAGES)
    text = (ROOT / "docker-compose.yml").read_text()
    assert all(f"${{{name}_IMAGE:-{image}}}" in text for name, image in pairs.items())


def test_a_document_has_the_command_that_is_run_once() -> None:
    with pytest.raises(ValueError):
        building.find_command("```\nfirst word\n```\n\n```\nsecond word\n```\n", "word")


@pytest.mark.parametrize("service", sorted(COMPOSE["services"]))
def test_every_limit_of_memory_can_be_read(service: str) -> None:
    assert 2**27 < confinement.parse_bytes(COMPOSE["services"][service]["mem_limit"]) < 2**34


def test_a_table_of_routes_shows_a_way_out() -> None:
    title = "Iface\tDestination\tGateway\n"
    assert not confinement.has_default_route(title + "eth0\t0001590A\t00000000\n")
    assert confinement.has_default_route(title + "eth0\t0001590A\t00000000\neth1\t00000000\t0102590A\n")


def test_control_groups_of_both_versions_are_found() -> None:
    first = "12:cpu,cpuacct:/box\n9:memory:/box\n0::/\n"
    assert confinement.find_control_group(first, "memory") == (Path("/sys/fs/cgroup/memory/box"), 1)
    assert confinement.find_control_group("0::/box\n", "memory") == (Path("/sys/fs/cgroup/box"), 2)


@pytest.mark.parametrize("other", [[], [{"diagnosis": "nv"}], [{"diagnosis": "mel"}, {"diagnosis": "mel"}]])
def test_reports_that_differ_are_told_apart(other: list[dict[str, str]]) -> None:
    report = [{"diagnosis": "mel"}]
    story.compare(report, report, "itself")
    with pytest.raises(engine.Failed):
        story.compare(report, other, "another")
