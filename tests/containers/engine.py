"""Podman and podman-compose, with images in a folder of their own, and what runs in namespaces (``isolation.py``).

Quirks of the engine live here: podman-compose 1.0.3 waits for no condition and knows no ``pids_limit``, and without
systemd podman asks for no health by itself.
"""

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.containers.isolation import RUN

PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "podman-compose": "podman-compose",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "catatonit": "catatonit",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "ip": "iproute2",
}
"""The programs that are needed, each with the package of Debian that has it."""
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/lib/podman:/usr/libexec/podman:/usr/sbin:/sbin"
_LIMITS = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]
"""What a machine allows on which limits may not be raised; dermq needs no more."""


_started = time.monotonic()


class Failed(Exception):
    """Raised when a command failed, or something did not come about in time."""


def say(text: str) -> None:
    """Print a line of the log, with the seconds since the start."""
    print(f"{time.monotonic() - _started:6.1f} s  {text}", flush=True)


def missing() -> str:
    """Why this machine cannot run containers; empty when it can."""
    if os.geteuid() != 0:
        return "root is needed"
    absent = [package for program, package in PACKAGES.items() if shutil.which(program, path=_PATH) is None]
    return f"these packages are needed: apt-get install {' '.join(absent)}" if absent else ""


class Engine:
    """The engine, and one compose project at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        networks = RUN / "networks"
        networks.mkdir(exist_ok=True)
        self.options = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--root", str(folder / "images")]
        self.options += ["--runroot", str(RUN), "--network-config-dir", str(networks)]

    def podman(self, *arguments: str, input: bytes | None = None, timeout: float = 300) -> str:
        """Run one command of podman and return what it prints."""
        return self._run(["podman", *self.options, *arguments], input=input, timeout=timeout).decode()

    def raw(self, *arguments: str, input: bytes | None = None) -> bytes:
        return self._run(["podman", *self.options, *arguments], input=input)

    def clear(self) -> int:
        """Remove the containers and volumes of an earlier run, and return how many there were."""
        left = self.podman("ps", "--all", "--external", "--quiet", "--no-trunc").split()
        volumes = self.podman("volume", "ls", "--quiet").split()
        if left:  # by name, because `--all` leaves out those of a build
            self.podman("rm", "--force", "--time", "0", *left)
        self.podman("volume", "rm", "--all", "--force")
        for container in left:  # the empty groups of killed processes are all that the kernel keeps
            for group in Path("/sys/fs/cgroup").glob(f"**/libpod-*{container}"):
                with contextlib.suppress(OSError):
                    group.rmdir()
        return len(left) + len(volumes)

    def has_image(self, name: str) -> bool:
        return name in self.podman("images", "--format", "{{.Repository}}:{{.Tag}}").replace(":latest", "").split()

    def image_bytes(self, name: str) -> int:
        return int(self.podman("image", "inspect", "--format", "{{.Size}}", name))

    def derive(self, name: str, lines: Iterable[str]) -> None:
        """Make an image by a Containerfile of ``lines``, which copies nothing."""
        file = self.folder / "Containerfile"
        file.write_text("".join(f"{line}\n" for line in lines))
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        self.podman("build", "--quiet", "--format=docker", "--tag", name, "--file", str(file), *_LIMITS, str(empty))

    def build(self, project: "Project", target: str, tag: str, timeout: float = 900) -> None:
        """Build one target of the Dockerfile with this machine's own configuration of pip."""
        python = project.environment.get("PYTHON_IMAGE")
        self.podman(
            *[
                "build",
                "--quiet",
                "--format=docker",  # the other format has no health check
                "--target",
                target,
                "--tag",
                tag,
                "--network=host",
                *_LIMITS,
                *_mounts_of_pip(self.folder),
                *(["--build-arg", f"PYTHON_IMAGE={python}"] if python else []),
                str(project.folder),
            ],
            timeout=timeout,
        )

    def compose(self, project: "Project", *arguments: str) -> str:
        """Run podman-compose and return what it prints; it may end with 0 although a command of its own failed."""
        wrapper = self._wrapper(project)
        command = ["podman-compose", "--podman-path", str(wrapper), "-p", project.name, "-f", str(project.file)]
        told = self._run([*command, *arguments], cwd=project.folder, environment=project.environment, with_errors=True)
        return told.decode(errors="replace")

    def _wrapper(self, project: "Project") -> Path:
        """A podman that adds what podman-compose leaves out of the compose file."""
        limits = {name: service["pids_limit"] for name, service in project.services.items() if "pids_limit" in service}
        wrapper = self.folder / f"podman-{project.name}"
        wrapper.write_text(write_wrapper(self.options, limits))
        wrapper.chmod(0o755)
        return wrapper

    def _run(
        self,
        command: list[str],
        input: bytes | None = None,
        timeout: float = 300,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        with_errors: bool = False,
    ) -> bytes:
        try:
            done = subprocess.run(
                command,
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                timeout=timeout,
                cwd=cwd,
                env=os.environ | (environment or {}),
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise Failed(f"{' '.join(command[-6:])} did not end within {timeout:g} s") from err
        if done.returncode != 0:
            told = (done.stdout[-1500:] + done.stderr[-2500:]).decode(errors="replace")
            raise Failed(f"{' '.join(command[-6:])} ended with {done.returncode}:\n{told}")
        return done.stdout + (done.stderr if with_errors else b"")


class Project:
    """One compose file brought up; ``environment`` is what the file's variables are taken from."""

    def __init__(self, engine: Engine, folder: Path, name: str, environment: dict[str, str]) -> None:
        self.engine, self.folder, self.name, self.environment = engine, folder, name, environment
        self.file = folder / "docker-compose.yml"
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(self.file.read_text())["services"]

    def container(self, service: str) -> str:
        return f"{self.name}_{service}_1"

    def exists(self, service: str) -> bool:
        return self.container(service) in self.engine.podman("ps", "-a", "--format", "{{.Names}}").split()

    def up(self, *services: str) -> None:
        """Start services in this order, each when it is healthy what it depends on, as `depends_on` asks."""
        for service in services:
            told = self.engine.compose(self, "up", "--detach", "--no-build", service)
            if not self.exists(service):
                raise Failed(f"{service} was not started:\n{told[-2500:]}")
            if service == "migrate":
                if self.engine.podman("wait", self.container(service)).strip() != "0":
                    raise Failed(self.logs(service))
            elif service in ("redis", "postgres", "web"):
                self.wait_healthy(service)

    def stop(self, *services: str) -> list[str]:
        """Stop services at one time, as `docker compose stop` does, and remove their containers.

        Returns those that did not end within their 20 seconds and were killed.
        """
        present = [service for service in services if self.exists(service)]
        if not present:
            return []
        names = [self.container(service) for service in present]
        self.engine.podman("stop", "-t", "20", *names)
        killed = [service for service in present if self.inspect(service)["State"]["ExitCode"] == 137]
        self.engine.podman("rm", "-f", *names)
        return killed

    def down(self, *, volumes: bool = False) -> list[str]:
        """Stop programs before the servers they use, and remove the containers. Returns those that were killed."""
        killed = self.stop("proxy", "web", "reaper", "worker-cpu", "intake", "migrate")
        killed += self.stop("redis", "postgres")
        if volumes:
            self.engine.podman("volume", "rm", "--all", "--force")
        return killed

    def healthy(self, service: str) -> bool:
        try:
            self.engine.podman("healthcheck", "run", self.container(service))
        except Failed:
            return False
        return True

    def succeeds(self, service: str, *command: str) -> bool:
        try:
            self.execute(service, *command)
        except Failed:
            return False
        return True

    def wait_healthy(self, service: str) -> float:
        try:
            return wait(lambda: self.healthy(service), 180, f"{service} is healthy")
        except Failed as err:
            raise Failed(f"{err}\n{self.logs(service)}") from err

    def execute(self, service: str, *command: str, input: bytes | None = None) -> bytes:
        flags = ["-i"] if input is not None else []
        return self.engine.raw("exec", *flags, self.container(service), *command, input=input)

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.engine.podman("inspect", self.container(service)))[0]
        return found

    def pid(self, service: str) -> int:
        """The first process of a service's container, as this machine numbers it; 0 when there is none."""
        return int(self.inspect(service)["State"]["Pid"])

    def logs(self, service: str) -> str:
        name = self.container(service)
        done = subprocess.run(["podman", *self.engine.options, "logs", "--tail", "40", name], capture_output=True)
        return (done.stdout + done.stderr).decode(errors="replace")


def write_wrapper(options: list[str], limits: dict[str, int]) -> str:
    """Return a program that calls podman with ``options``, and with the limit of processes of the service it runs."""
    return (
        f"#!{sys.executable}\n"
        "import os, re, sys\n"
        f"limits, options, ulimits = {limits!r}, {options!r}, {_LIMITS!r}\n"
        "arguments = sys.argv[1:]\n"
        "if arguments[:1] in (['run'], ['create']):\n"
        "    name = next(a for a in arguments if a.startswith('--name='))\n"
        "    service = re.sub(r'^--name=[^_]+_|_\\d+$', '', name)\n"
        "    pids = ['--pids-limit', str(limits[service])] if service in limits else []\n"
        "    arguments[1:1] = ulimits + pids\n"
        "os.execvp('podman', ['podman', *options, *arguments])\n"
    )


def wait(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until ``condition`` holds; return how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(0.3)
    return time.monotonic() - began


def _mounts_of_pip(folder: Path) -> list[str]:
    """Options of a build that let its pip read what this machine's pip reads: one merged file, and what it names."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    sections = merge_pip_options(listed.stdout.splitlines())
    merged = folder / "pip.conf"
    texts = (f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for name, of in sections.items())
    merged.write_text("".join(texts))
    named = {path for path in find_paths(sections) if path.exists()}
    mounts = [f"{merged}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(keep_outermost(named)))]
    return [f"--volume={mount}" for mount in mounts]


def merge_pip_options(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what `pip config list` printed as the sections of one file; variables go before files."""
    sections: dict[str, dict[str, str]] = {}
    for line in sorted(lines, key=lambda line: not line.startswith("global.")):
        key, _, value = line.partition("=")
        section, _, option = key.replace(":env:.", "global.").partition(".")
        sections.setdefault(section, {})[option] = " ".join(ast.literal_eval(value).split())
    return sections


def find_paths(sections: dict[str, dict[str, str]]) -> set[Path]:
    """Return the files and folders that options of pip name."""
    words = " ".join(value for of in sections.values() for value in of.values()).split()
    named = {Path(word) for word in words if word.startswith("/")}
    # Pages of an index in a folder point to files beside it.
    return named | {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}


def keep_outermost(paths: Iterable[Path]) -> set[Path]:
    """Leave out what lies in another of the folders."""
    every = set(paths)
    return {path for path in every if not any(parent in every for parent in path.parents)}
