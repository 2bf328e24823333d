"""``make containers``: build the images, bring the compose file up, and do to it what happens to an installation.

Read from top to bottom. It needs root and Debian's podman, runc, podman-compose and mmdebstrap, and no secret; where
one is missing it says so and does nothing. Images of a registry are stood in for (``standins.py``); the GPU image is
not built. What it makes lies in ``.cache/containers`` and is kept for the next time.
"""

import contextlib
import io
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dermq.settings import ROOT
from tests import samples
from tests.conftest import SHARED
from tests.containers import engine, standins
from tests.containers.client import Client
from tests.containers.engine import Engine, Failed, Project, wait

FIRST = "7e2de93"
"""The commit of version 0.1.0, the first that shipped a queue."""
PROGRAMS = ("web", "worker-cpu", "intake", "reaper")
SERVERS = ("postgres", "redis")
MANY = 6
"""Copies of the images in the batches that are in flight while something happens."""

_started = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _started:6.1f} s  {text}", flush=True)


def main() -> int:
    """Run the story. Returns the exit status."""
    if reason := engine.missing():
        print(f"SKIPPED make containers: {reason}.")
        return 1 if os.environ.get("CI") == "true" else 0
    os.umask(0o022)
    images = _images()
    here = Engine(ROOT / ".cache" / "containers")
    with tempfile.TemporaryDirectory(prefix="dermq-containers-") as name:
        folder = Path(name)
        old, new = _projects(here, folder)
        try:
            _build(here, old, new)
            of_make_run = _report_of_make_run(folder / "var", images)
            client, upgraded = _upgrade(here, old, new, images)
            _tell_sizes(new, "after the upgrade")
            batch = client.submit("originals", _archive(images))
            client.finish(batch, len(images))
            report = client.report(batch)
            _equal(report, of_make_run, "`make run`'s report")
            say(f"{len(images)} images: the report equals `make run`'s, {len(report)} rows")
            _hardened(new)
            _kill_each(new, client, images)
            _restore(new, client, {batch: report, upgraded: client.report(upgraded)}, folder)
            _behind_tls(new, client, batch, report)
            _tell_sizes(new, "at the end")
        except Failed as err:
            say(f"FAILED: {err}")
            for service in (*PROGRAMS, *SERVERS):
                print(f"--- {service}\n{new.logs(service)[-1500:]}")
            return 1
        finally:
            with contextlib.suppress(Failed):
                new.down(volumes=True)
    say("taken down")
    return 0


def _images() -> dict[str, bytes]:
    path = SHARED / "ham10000" / "originals_600x450.zip"
    if not path.is_file():
        say("../shared with the 100 originals is not here: generated pictures are used instead")
        return {f"generated-{number:03}.jpg": samples.jpeg(seed=number) for number in range(100)}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def _archive(images: dict[str, bytes], copies: int = 1) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for copy in range(copies):
            for name, data in images.items():
                archive.writestr(f"{copy}/{name}", data)
    return made.getvalue()


def _projects(here: Engine, folder: Path) -> tuple[Project, Project]:
    """The first version and this one, each in a clone's folder, with the same passwords as each wants them."""
    passwords = {name: secrets.token_hex(24) for name in ("postgres_password", "redis_password")}
    with socket.socket() as free, socket.socket() as free_tls, socket.socket() as free_http:
        for each in (free, free_tls, free_http):
            each.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (free, free_tls, free_http)]
    given = {"DERMQ_PORT": ports[0], "PROXY_HTTPS_PORT": ports[1], "PROXY_HTTP_PORT": ports[2]}
    projects = []
    for name, commit in (("old", FIRST), ("new", "HEAD")):
        _check_out(commit, folder / name)
        projects.append(Project(here, folder / name, "dermq", given))
    old, new = projects
    old.environment = given | {name.upper(): value for name, value in passwords.items()}
    (new.folder / "secrets").mkdir(mode=0o700)
    for name, value in passwords.items():
        (new.folder / "secrets" / name).write_text(f"{value}\n")
    return old, new


def _check_out(commit: str, folder: Path) -> None:
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        raise SystemExit(f"Commit {commit} is not in this clone; a shallow one lacks it: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _build(here: Engine, old: Project, new: Project) -> None:
    with ThreadPoolExecutor() as both:
        python, servers = here.folder / "python.tar", here.folder / "servers.tar"
        list(
            both.map(
                lambda make: make(), (lambda: standins.make_python(python), lambda: standins.make_servers(servers))
            )
        )
    names = {"python": "python:3.11-slim-bookworm", "caddy": "caddy:2-alpine"}
    names |= {"postgres": "postgres:17-alpine", "redis": "redis:8-alpine"}
    known = here.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    for name, changes in standins.IMPORTED.items():
        if f"docker.io/library/{names[name]}" not in known:
            here.import_image(python if name == "python" else servers, f"docker.io/library/{names[name]}", changes)
    say("stand-ins for the images of python, postgres, redis and caddy are made")
    for project, tag in ((old, "first"), (new, "now")):
        for target in ("web", "worker-cpu"):
            here.build(project.folder, target, f"localhost/dermq-{target}:{tag}")
            say(f"built {target}, {'version 0.1.0' if tag == 'first' else 'this version'}")
    say("not built here: worker-gpu, whose wheels take gigabytes and which nothing here could run")


def _install(here: Engine, tag: str) -> None:
    """Give the images of one version the names that the compose file uses."""
    for target in ("web", "worker-cpu"):
        here.podman("tag", f"localhost/dermq-{target}:{tag}", f"docker.io/library/dermq-{target}:latest")
        here.podman("tag", f"localhost/dermq-{target}:{tag}", f"localhost/dermq-{target}:latest")


def _report_of_make_run(var: Path, images: dict[str, bytes]) -> list[dict[str, str]]:
    """What the programs of `make run` say of the images."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"DERMQ_VAR_DIR": str(var), "DERMQ_PORT": str(port)}
    console = subprocess.DEVNULL
    programs = subprocess.Popen([sys.executable, "-m", "embedded"], cwd=ROOT, env=environment, stdout=console)
    try:
        token = var / "local-token"
        wait(lambda: token.is_file() and bool(token.read_text().strip()), 60, "`make run` starts")
        client = Client(f"http://127.0.0.1:{port}", token.read_text().strip())
        batch = client.submit("originals", _archive(images))
        client.finish(batch, len(images))
        return client.report(batch)
    finally:
        programs.send_signal(signal.SIGTERM)
        programs.wait(60)


def _upgrade(here: Engine, old: Project, new: Project, images: dict[str, bytes]) -> tuple[Client, str]:
    """Stop the first version with a batch in flight, start this one on its volumes, and see the batch finish."""
    _install(here, "first")
    old.down(volumes=True)
    old.up(*SERVERS, "migrate", *PROGRAMS)
    say("version 0.1.0 is up")
    old.execute("web", "flask", "--app", "web.app", "lab", "add", "clinic")
    told = old.execute("web", "flask", "--app", "web.app", "token", "issue", "clinic", "scripts").decode()
    token = max(re.findall(r"\S+", told), key=len)
    client = Client(f"http://127.0.0.1:{old.environment['DERMQ_PORT']}", token)
    count = len(images) * MANY
    batch = client.submit("in flight", _archive(images, MANY))
    wait(lambda: client.status(batch)["counts"]["done"] > 50, 60, "the first images are done")
    old.down()
    before = _count(new, here, old)
    began = time.monotonic()
    _install(here, "now")
    new.up(*SERVERS)
    revision = _revision(new)
    new.up("migrate")
    across = f"from revision {revision} to {_revision(new)}"
    new.up(*PROGRAMS)
    done = client.status(batch)["counts"]["done"]
    say(f"this version is up after {time.monotonic() - began:.1f} s, {across}; {before}{done} of {count} images done")
    client.finish(batch, count)
    _audit(new)
    say(f"the batch that was in flight has finished: {count} done, the audit finds nothing")
    return client, batch


def _count(new: Project, here: Engine, old: Project) -> str:
    """Which migrations lie between the two versions, found in their folders."""
    names = [{path.name for path in (p.folder / "migrations" / "versions").glob("*.py")} for p in (old, new)]
    between = sorted(names[1] - names[0])
    return f"migrations between: {', '.join(between) or 'none'}; "


def _revision(project: Project) -> str:
    query = "SELECT version_num FROM alembic_version"
    return project.execute("postgres", "psql", "-U", "dermq", "-d", "dermq", "-Atc", query).decode().strip()


def _audit(project: Project) -> None:
    told = project.execute("web", "flask", "--app", "web.app", "audit").decode()
    if "all conserved" not in told:
        raise Failed(f"the audit found: {told}")


def _equal(report: list[dict[str, str]], other: list[dict[str, str]], what: str) -> None:
    if len(report) != len(other):
        raise Failed(f"{len(report)} rows differ from {what} with {len(other)}")
    for mine, theirs in zip(report, other, strict=True):
        if mine != theirs:
            raise Failed(f"{what} differs: {mine} / {theirs}")


def _hardened(project: Project) -> None:
    """See in the running containers what the compose file asks for."""
    for service in (*PROGRAMS, *SERVERS):
        status = Path(f"/proc/{project.inspect(service)['State']['Pid']}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        found = project.inspect(service)["HostConfig"]
        if int(fields["CapBnd"], 16) or fields["NoNewPrivs"] != "1" or fields["Uid"].split()[0] == "0":
            raise Failed(f"{service} may do too much: {fields}")
        wanted = project.services[service]
        if not found["ReadonlyRootfs"] or found["PidsLimit"] != wanted["pids_limit"] or not found["Memory"]:
            raise Failed(f"{service} lacks a limit: {found}")
        with contextlib.suppress(Failed):
            project.execute(service, "sh", "-c", "touch /opt/written || touch /written")
            raise SystemExit(f"{service} could write to its root file system")
    _no_secret_is_shown(project)
    if _reaches_out(project, "intake"):
        raise Failed("the network of the back reaches out")
    say("each program: no capability, no new privileges, not root, root file system read-only, limits set, no secret")


def _no_secret_is_shown(project: Project) -> None:
    """Neither password stands in an argument or the environment of a container, or on a process's command line."""
    passwords = [path.read_text().strip() for path in (project.folder / "secrets").iterdir()]
    shown = [project.engine.podman("inspect", project.container(service)) for service in (*PROGRAMS, *SERVERS)]
    shown += [path.read_text(errors="replace") for path in _command_lines()]
    if any(password in text for password in passwords for text in shown):
        raise Failed("a password can be read from outside")


def _command_lines() -> Iterator[Path]:
    return (path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists() and path.is_file())


def _reaches_out(project: Project, service: str) -> bool:
    code = "import sys; sys.exit(0 if any(l.split()[1] == '00000000' for l in open('/proc/net/route')) else 1)"
    try:
        project.execute(service, "python", "-c", code)
    except Failed:
        return False
    return True


def _kill_each(project: Project, client: Client, images: dict[str, bytes]) -> None:
    """SIGKILL to the first process of each container while a batch runs: it is started again, nothing is lost."""
    count = len(images) * MANY
    for service in (*PROGRAMS, *SERVERS):
        batch = client.submit(f"{service} is killed", _archive(images, MANY))
        wait(lambda batch=batch: client.status(batch)["counts"]["done"] > 20, 60, "the first images are done")
        died = project.inspect(service)["State"]["Pid"]
        os.kill(died, signal.SIGKILL)
        began = time.monotonic()
        wait(
            lambda s=service, d=died: project.inspect(s)["State"]["Pid"] not in (0, d),
            60,
            f"{service} is started again",
        )
        back = time.monotonic() - began
        if service != "reaper":
            project.wait_healthy(service)
        healthy = time.monotonic() - began
        client.finish(batch, count)
        say(f"{service} killed: started after {back:.1f} s, healthy after {healthy:.1f} s, {count} of {count} done")
    _audit(project)
    say("the audit finds nothing")


def _restore(project: Project, client: Client, reports: dict[str, list[dict[str, str]]], folder: Path) -> None:
    """Back up as docs/operating.md says, lose both volumes, restore, and compare."""
    dump = project.execute("postgres", "pg_dump", "-U", "dermq", "-d", "dermq", "-Fc")
    files = project.execute("web", "tar", "-C", "/var/lib/dermq", "-cf", "-", "blobs")
    say(f"backed up: database {len(dump) / 1e6:.1f} MB, images {len(files) / 1e6:.1f} MB")
    project.down(volumes=True)
    project.up(*SERVERS)
    project.execute("postgres", "pg_restore", "-U", "dermq", "-d", "dermq", "--no-owner", input=dump)
    project.up("migrate", "web")
    project.execute("web", "tar", "-C", "/var/lib/dermq", "-xf", "-", input=files)
    project.up(*PROGRAMS[1:])
    for batch, report in reports.items():
        _equal(client.report(batch), report, "the report before the loss")
    _audit(project)
    say(f"restored on empty volumes: {len(reports)} reports equal, {sum(map(len, reports.values()))} rows; audit clean")


def _behind_tls(project: Project, client: Client, batch: str, report: list[dict[str, str]]) -> None:
    project.up("proxy")
    secure = Client(f"https://localhost:{project.environment['PROXY_HTTPS_PORT']}", client._token)
    _equal(secure.report(batch), report, "the report by HTTPS")
    with contextlib.suppress(Failed):
        secure.call("GET", "/metrics")
        raise SystemExit("the proxy hands out /metrics")
    cookies = _cookies(secure)
    if not cookies or not all("Secure" in cookie for cookie in cookies):
        raise Failed(f"a cookie may go over plain HTTP: {cookies}")
    say("behind TLS: report equal, /metrics closed, cookies Secure")


def _cookies(client: Client) -> list[str]:
    request = urllib.request.Request(f"{client._address}/sign-in")
    try:
        with urllib.request.urlopen(request, timeout=20, context=client._tls) as answer:
            return list(answer.headers.get_all("Set-Cookie") or [])
    except urllib.error.HTTPError as err:
        raise Failed(f"/sign-in: {err.code}") from err


def _tell_sizes(project: Project, when: str) -> None:
    """The most memory each container has taken since it began, beside its limit."""
    told = []
    for service in (*PROGRAMS, *SERVERS):
        limit = project.inspect(service)["HostConfig"]["Memory"]
        most = _peak_bytes(project.inspect(service)["State"]["Pid"])
        told.append(f"{service} {most / 2**20:.0f} of {limit / 2**20:.0f}")
        if most >= limit:
            raise Failed(f"{service} took all its memory: {told[-1]} MiB")
    say(f"memory, MiB, {when}: {', '.join(told)}")


def _peak_bytes(pid: int) -> int:
    """Resident memory of a container's processes at their peaks, without the page cache."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree = {pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    total = 0
    for member in tree:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{member}/status").read_text())
            total += int(found[1]) * 1024 if found else 0
    return total


if __name__ == "__main__":
    shutil.which("git") or sys.exit("git is needed")
    sys.exit(main())
