"""Checks of the container files that need no container engine. `make containers` runs them."""

import ipaddress
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dermq.settings import ROOT, Settings
from tests.containers.confinement import parse_bytes

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROGRAMS = {"web", "worker-gpu", "worker-cpu", "intake", "reaper", "migrate"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def test_compose_file_follows_the_schema(compose: dict[str, Any]) -> None:
    path = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []


def test_every_program_of_dermq_is_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == PROGRAMS | {"redis", "postgres", "proxy"}


def test_ports_are_on_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith(("127.0.0.1:", "${PROXY_BIND:-127.0.0.1}:")) for port in ports)


def test_passwords_are_files(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\$\{\w*PASSWORD", text) == []
    assert {secret["file"] for secret in compose["secrets"].values()} == {
        "./secrets/postgres_password",
        "./secrets/redis_password",
    }
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_service_is_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["pids_limit"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else []), name


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_memory_of_a_worker_holds_its_decoders_and_an_engine(compose: dict[str, Any], name: str) -> None:
    settings = Settings(_env_file=None)
    engine_bytes = 900_000_000
    wanted = settings.decoders * settings.decoder_memory_bytes + engine_bytes
    assert parse_bytes(compose["services"][name]["mem_limit"]) > wanted


def test_the_back_does_not_reach_out(compose: dict[str, Any]) -> None:
    assert compose["networks"]["back"] == {"internal": True}
    in_front = {name for name, service in compose["services"].items() if "front" in service["networks"]}
    assert in_front == {"web", "proxy"}
    assert "back" not in compose["services"]["proxy"]["networks"]


def test_cookies_are_secure_unless_said_otherwise(compose: dict[str, Any]) -> None:
    assert compose["services"]["web"]["environment"]["DERMQ_SECURE_COOKIES"] == "${DERMQ_SECURE_COOKIES:-true}"


def test_the_web_has_the_name_of_the_proxy_and_believes_it(compose: dict[str, Any]) -> None:
    environment = compose["services"]["web"]["environment"]
    assert "${PROXY_HOST:-localhost}" in environment["DERMQ_TRUSTED_HOSTS"].split(",")
    assert compose["services"]["proxy"]["environment"]["PROXY_HOST"] == "${PROXY_HOST:-localhost}"
    believed = environment["DERMQ_TRUSTED_PROXIES"].removeprefix("${DERMQ_TRUSTED_PROXIES:-").removesuffix("}")
    settings = Settings(trusted_proxies=believed, _env_file=None)
    for address in ("172.18.0.3", "192.168.96.3", "10.89.1.3"):  # of Docker, of Docker with many networks, of podman
        assert any(ipaddress.ip_address(address) in network for network in settings.proxies)


def test_logs_do_not_fill_the_disk(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_a_machine_without_a_gpu_has_a_profile(compose: dict[str, Any]) -> None:
    assert compose["services"]["worker-cpu"]["profiles"] == ["cpu"]
    devices = compose["services"]["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia" and devices[0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_program_has_time_to_stop_and_its_own_image(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["init"] is True and service["image"] and service["build"]["target"] in _stages()
    assert name == "migrate" or service["stop_grace_period"] == "20s"


@pytest.mark.parametrize("name", sorted(PROGRAMS - {"migrate"}))
def test_every_program_that_ends_by_itself_is_started_again(compose: dict[str, Any], name: str) -> None:
    assert compose["services"][name]["restart"] == "unless-stopped"


def test_services_are_checked_for_health(compose: dict[str, Any]) -> None:
    for name in ("redis", "postgres"):
        assert compose["services"][name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for target in ("web", "worker-cpu", "worker-gpu"):
        assert "HEALTHCHECK" in _stages()[target]


def test_settings_in_containers_exist(compose: dict[str, Any]) -> None:
    known = {f"DERMQ_{name.upper()}" for name in Settings.model_fields}
    named = {name for service in compose["services"].values() for name in service.get("environment", {})}
    named |= set(re.findall(r"\b(DERMQ_\w+)=", DOCKERFILE))
    assert {name for name in named if name.startswith("DERMQ_")} <= known


def test_volumes_and_services_that_are_named_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= {*compose["volumes"], "."} | {
            "./docker/Caddyfile"
        }


def test_images_run_as_nobody_in_particular() -> None:
    for target in ("web", "worker-cpu", "worker-gpu"):
        lines = _stages()[target].splitlines()
        assert lines.index("USER dermq") > max(number for number, line in enumerate(lines) if line.startswith("COPY"))


def test_copied_files_exist_and_are_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.M):
        assert (ROOT / source).exists()
        assert Path(source).parts[0] in sent


def test_packages_come_from_hashed_locks_alone() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert len(installs) == 3
    assert all(
        re.fullmatch(r"--no-deps --require-hashes -r requirements/(web|cpu|gpu)\.txt", install) for install in installs
    )


def test_commands_name_modules_and_files_that_exist(compose: dict[str, Any]) -> None:
    commands = [service["command"] for service in compose["services"].values() if "command" in service]
    commands += [json.loads(found) for found in re.findall(r"CMD (\[.*\])", DOCKERFILE)]
    ours = [command for command in commands if command[:2] == ["python", "-m"]]
    assert len(ours) == 8
    for _, _, module, *arguments in ours:
        assert module in {"gunicorn", "alembic"} or _is_module(module)
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def _stages() -> dict[str, str]:
    """Return the text of each stage of the Dockerfile, by name."""
    parts = re.split(r"^FROM \S+ AS (\S+)\n", DOCKERFILE, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
