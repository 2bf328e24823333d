"""The images of two versions, built from their commits, and the compose files that use them."""

import io
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dermq.settings import ROOT
from tests.containers import standins
from tests.containers.engine import Engine, Failed, Project, say

FIRST = "7e2de93"
"""The commit of version 0.1.0, the first that shipped a queue."""
TARGETS = ("web", "worker-cpu")
_GPU_FREE_BYTES = 30e9
"""Room that the GPU image takes while it is built: its wheels, their files and the copy in the last stage."""


def projects(here: Engine, folder: Path) -> tuple[Project, Project]:
    """The first version and this one, each in a clone's folder, with the same passwords as each wants them."""
    passwords = {name: secrets.token_hex(24) for name in ("postgres_password", "redis_password")}
    given = dict(zip(("DERMQ_PORT", "PROXY_HTTPS_PORT", "PROXY_HTTP_PORT"), free_ports(3), strict=True))
    found = []
    for name, commit in (("old", FIRST), ("new", "HEAD")):
        _check_out(commit, folder / name)
        found.append(Project(here, folder / name, "dermq", given))
    old, new = found
    old.environment = given | {name.upper(): value for name, value in passwords.items()}
    (new.folder / "secrets").mkdir(mode=0o700)
    for name, value in passwords.items():
        (new.folder / "secrets" / name).write_text(f"{value}\n")
    return old, new


def free_ports(count: int) -> list[str]:
    """Ports of this machine that nothing listens on now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in taken]
    for each in taken:
        each.close()
    return ports


def _check_out(commit: str, folder: Path) -> None:
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        raise Failed(f"Commit {commit} is not in this clone; a shallow one lacks it: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def build(here: Engine, old: Project, new: Project, *, gpu: bool) -> None:
    """Make the images that are not there yet: stand-ins, and those of both versions."""
    _make_stand_ins(here)
    _pin(here, new)
    for project, tag, version in ((old, "first", "version 0.1.0"), (new, "now", "this version")):
        for target in TARGETS:
            here.build(project, target, f"localhost/dermq-{target}:{tag}")
            say(f"built {target}, {version}")
    free = shutil.disk_usage(here.folder).free
    if not gpu:
        say("SKIPPED the image worker-gpu: it was not asked for (CONTAINERS=--gpu), and takes gigabytes")
    elif free < _GPU_FREE_BYTES:
        say(f"SKIPPED the image worker-gpu: {free / 1e9:.0f} GB of disk are free, it takes {_GPU_FREE_BYTES / 1e9:.0f}")
    else:
        here.build(new, "worker-gpu", "localhost/dermq-worker-gpu:now", timeout=3000)
        say(f"built worker-gpu, {here.image_bytes('localhost/dermq-worker-gpu:now') / 1e9:.1f} GB; it is not run")


def _pin(here: Engine, project: Project) -> None:
    """Run the command of docs/operating.md that writes digests into ``.env``, and take them from there."""
    command = find_command((project.folder / "docs" / "operating.md").read_text(), "RepoDigests")
    docker = here.folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    options = shlex.join(here.options)
    docker.write_text(f'#!/bin/sh\n[ "$1" = pull ] || exec podman {options} "$@"\n')  # the stand-ins are here
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", command], cwd=project.folder, env=environment, check=True)
    pins = dict(line.split("=", 1) for line in (project.folder / ".env").read_text().splitlines())
    if len(pins) != len(standins.IMAGES) or not all("@sha256:" in image for image in pins.values()):
        raise Failed(f"the documented command pinned {pins}")
    project.environment = project.environment | pins
    say(f"pinned by digest as docs/operating.md says: {', '.join(sorted(pins))}")


def find_command(document: str, word: str) -> str:
    """Return the one block of commands in a document that has ``word``."""
    [found] = [block for block in re.findall(r"^```\n(.*?)^```", document, re.M | re.S) if word in block]
    return str(found)


def install(here: Engine, tag: str) -> None:
    """Give the images of one version the names that the compose file uses."""
    for target in TARGETS:
        for name in (f"docker.io/library/dermq-{target}:latest", f"localhost/dermq-{target}:latest"):
            here.podman("tag", f"localhost/dermq-{target}:{tag}", name)


def _make_stand_ins(here: Engine) -> None:
    def make(name: str, debian: Callable[[Path], None]) -> None:
        if not here.has_image(name):
            tarball = here.folder / f"{name.rpartition('/')[2]}.tar"
            debian(tarball)
            here.podman("import", str(tarball), name)
            tarball.unlink()

    with ThreadPoolExecutor() as both:
        made = [
            both.submit(make, "localhost/stand-in-python", standins.make_python),
            both.submit(make, "localhost/stand-in-servers", standins.make_servers),
        ]
    for each in made:
        each.result()
    for name, lines in standins.IMAGES.items():
        if not here.has_image(name):
            here.derive(name, lines)
    say("made stand-ins for the images of python, postgres, redis and caddy")
