"""``make containers``: build the images, bring the compose file up, and do to it what happens to an installation.

Read from top to bottom. It needs root, Debian, its packages in ``engine.PACKAGES``, and no secret; where one is missing
it says so and does nothing. Images of a registry are stood in for (``standins.py``). The GPU image is built with
``CONTAINERS=--gpu`` and never run. Images lie in ``.cache/containers`` and are kept for next time. Everything else
vanishes with the run's first process (``isolation.py``).
"""

import argparse
import fcntl
import http.cookiejar
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from dermq.settings import ROOT
from tests import samples
from tests.conftest import SHARED
from tests.containers import building, confinement, engine, isolation
from tests.containers.client import Client
from tests.containers.engine import Engine, Failed, Project, say, wait

PROGRAMS = ("web", "worker-cpu", "intake", "reaper")
SERVERS = ("postgres", "redis")
_UPGRADE_COPIES = 15
"""Copies of the 100 images in the batch of the upgrade. The first version takes up to 5 s to stop, at most 100 images a
second on two cores; what is left must be in flight, and the upgrade fails when nothing is."""
_KILL_COPIES = 4
"""Copies of the images in each batch that is in flight when a service is killed."""


def main(*, gpu: bool) -> int:
    """Run the story. Returns the exit status."""
    here = Engine(ROOT / ".cache" / "containers")
    work = here.folder / "work"
    with (here.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            _main(here, work, gpu=gpu)
        except BlockingIOError:
            say("FAILED: another `make containers` runs in this clone")
            return 1
        except (Failed, OSError) as err:
            say(f"FAILED: {err}")
            return 1
    shutil.rmtree(work)
    return 0


def _main(here: Engine, work: Path, *, gpu: bool) -> None:
    images = _images()
    if left := here.clear():
        say(f"removed {left} containers and volumes of an earlier run that did not end by itself")
    old, new = building.projects(here, work)
    building.build(here, old, new, gpu=gpu)
    isolation.leave_network()
    of_make_run = _report_of_make_run(work / "var", images)
    try:
        _live(here, old, new, images, of_make_run)
    except Failed:
        for service in (*PROGRAMS, *SERVERS, "proxy"):
            print(f"--- {service}\n{new.logs(service)[-1500:]}")
        raise
    _take_down(new)
    say("taken down; every service stopped by itself within 20 s")


def _live(
    here: Engine, old: Project, new: Project, images: dict[str, bytes], of_make_run: list[dict[str, str]]
) -> None:
    """Do everything to the containers."""
    everything = (*PROGRAMS, *SERVERS)
    client, upgraded = _upgrade(here, old, new, images)
    batch = client.submit("originals", _archive(images))
    client.finish(batch, len(images))
    report = client.report(batch)
    compare(report, of_make_run, "`make run`'s report")
    say(f"{len(images)} images: the report equals `make run`'s, {len(report)} rows")
    confinement.check(new, everything)
    confinement.tell_sizes(new, everything, "after the upgrade")
    _kill_each(new, client, images)
    confinement.tell_sizes(new, everything, "after the kills")
    _restore(new, client, {batch: report, upgraded: client.report(upgraded)})
    _behind_tls(new, client, batch, report)
    confinement.tell_sizes(new, (*everything, "proxy"), "at the end")


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


def _report_of_make_run(var: Path, images: dict[str, bytes]) -> list[dict[str, str]]:
    """What the programs of `make run` say of the images."""
    [port] = building.free_ports(1)
    environment = os.environ | {"DERMQ_VAR_DIR": str(var), "DERMQ_PORT": port}
    console = subprocess.DEVNULL
    programs = subprocess.Popen([sys.executable, "-m", "embedded"], cwd=ROOT, env=environment, stdout=console)
    try:
        token = var / "local-token"
        wait(lambda: token.is_file() and bool(token.read_text().strip()), 180, "`make run` starts")
        client = Client(f"http://127.0.0.1:{port}", token.read_text().strip())
        batch = client.submit("originals", _archive(images))
        client.finish(batch, len(images))
        return client.report(batch)
    finally:
        programs.send_signal(signal.SIGTERM)
        programs.wait(60)


def _upgrade(here: Engine, old: Project, new: Project, images: dict[str, bytes]) -> tuple[Client, str]:
    """Stop the first version with a batch in flight, start this one on its volumes, and see the batch finish."""
    building.install(here, "first")
    old.up(*SERVERS, "migrate", *PROGRAMS)
    say("version 0.1.0 is up")
    old.execute("web", "flask", "--app", "web.app", "lab", "add", "clinic")
    told = old.execute("web", "flask", "--app", "web.app", "token", "issue", "clinic", "scripts").decode()
    client = Client(f"http://127.0.0.1:{old.environment['DERMQ_PORT']}", max(told.split(), key=len))
    count = len(images) * _UPGRADE_COPIES
    batch = client.submit("in flight", _archive(images, _UPGRADE_COPIES))
    wait(lambda: client.status(batch)["counts"]["done"] > 50, 180, "the first images are done")
    began = time.monotonic()
    old.down()
    building.install(here, "now")
    new.up(*SERVERS)
    before, done = _revision(new), int(_sql(new, "SELECT count(*) FROM image WHERE state = 'done'"))
    if not 0 < done < count:
        raise Failed(f"{done} of {count} images were done at the upgrade, so no batch was in flight")
    new.up("migrate", *PROGRAMS)
    say(f"upgraded in {time.monotonic() - began:.1f} s with {done} of {count} images done, {_across(before, new)}")
    client.finish(batch, count)
    _audit(new)
    say(f"the batch that was in flight has finished: {count} done, the audit finds nothing")
    return client, batch


def _across(before: str, new: Project) -> str:
    after = _revision(new)
    return f"from migration {before} to {after}" if after != before else f"no migration after {before}"


def _sql(project: Project, query: str) -> str:
    return project.execute("postgres", "psql", "-U", "dermq", "-d", "dermq", "-Atc", query).decode().strip()


def _revision(project: Project) -> str:
    return _sql(project, "SELECT version_num FROM alembic_version")


def _audit(project: Project) -> None:
    told = project.execute("web", "flask", "--app", "web.app", "audit").decode()
    if "all conserved" not in told:
        raise Failed(f"the audit found: {told}")


def compare(report: list[dict[str, str]], other: list[dict[str, str]], what: str) -> None:
    """Raise Failed unless two reports have equal rows."""
    if len(report) != len(other):
        raise Failed(f"{len(report)} rows differ from {what} with {len(other)}")
    for mine, theirs in zip(report, other, strict=True):
        if mine != theirs:
            raise Failed(f"{what} differs: {mine} / {theirs}")


def _kill_each(project: Project, client: Client, images: dict[str, bytes]) -> None:
    """SIGKILL to the first process of each container while batches run: it is started again, nothing is lost."""
    archive, count = _archive(images, _KILL_COPIES), len(images) * _KILL_COPIES
    batches = []
    for service in ("intake", "worker-cpu", "reaper", "web", *SERVERS):
        batches.append(batch := client.submit(f"{service} is killed", archive))
        wait(lambda batch=batch: client.status(batch)["counts"]["received"] > 0, 180, "unpacking begins")
        states = [client.status(each)["state"] for each in batches]
        if "running" not in states and "queued" not in states:
            raise Failed(f"no batch was in flight when {service} was to be killed: {states}")
        started, healthy = _kill(project, service)
        say(f"{service} killed with batches in flight: started after {started:.1f} s, healthy after {healthy:.1f} s")
    for batch in batches:
        client.finish(batch, count)
    _audit(project)
    say(f"{len(batches)} batches of {count} images have finished, the audit finds nothing")


def _kill(project: Project, service: str) -> tuple[float, float]:
    """Seconds until a killed service has a process again, and until it is healthy."""
    died, began = project.pid(service), time.monotonic()
    os.kill(died, signal.SIGKILL)
    wait(lambda: project.pid(service) not in (0, died), 60, f"{service} is started again")
    started = time.monotonic() - began
    if service != "reaper":  # it has no health check
        project.wait_healthy(service)
    return started, time.monotonic() - began


def _take_down(project: Project) -> None:
    """Stop everything and lose both volumes. Raises Failed when a service had to be killed."""
    if killed := project.down(volumes=True):
        raise Failed(f"these did not stop within 20 s: {', '.join(killed)}")


def _restore(project: Project, client: Client, reports: dict[str, list[dict[str, str]]]) -> None:
    """Back up as docs/operating.md says, lose both volumes, restore, and compare."""
    dump = project.execute("postgres", "pg_dump", "-U", "dermq", "-d", "dermq", "-Fc")
    files = project.execute("web", "tar", "-C", "/var/lib/dermq", "-cf", "-", "blobs")
    say(f"backed up: database {len(dump) / 1e6:.1f} MB, images {len(files) / 1e6:.1f} MB")
    _take_down(project)
    project.up(*SERVERS)
    project.execute("postgres", "pg_restore", "-U", "dermq", "-d", "dermq", "--no-owner", input=dump)
    project.up("migrate", "web")
    project.execute("web", "tar", "-C", "/var/lib/dermq", "-xf", "-", input=files)
    project.up(*PROGRAMS[1:])
    for batch, report in reports.items():
        compare(client.report(batch), report, "the report before the loss")
    _audit(project)
    say(f"restored on empty volumes: {len(reports)} reports equal, {sum(map(len, reports.values()))} rows; audit clean")


def _behind_tls(project: Project, client: Client, batch: str, report: list[dict[str, str]]) -> None:
    """Put the proxy before the web: its certificate holds, operators' addresses stay closed, a browser can sign in."""
    project.up("proxy")
    root = "/data/caddy/pki/authorities/local/root.crt"
    wait(lambda: project.succeeds("proxy", "test", "-s", root), 90, "the proxy has made its certificate")
    trusted = project.execute("proxy", "cat", root).decode()
    secure = Client(f"https://localhost:{project.environment['PROXY_HTTPS_PORT']}", client.token, trusted)
    compare(secure.report(batch), report, "the report by HTTPS")
    for path in ("/metrics", "/health/live", "/health/ready"):
        if (status := secure.status_code(path)) != 404:
            raise Failed(f"the proxy answers {path} with {status}")
    _check_names(client)
    cookies = _sign_in(secure)
    if not cookies or not all(cookie.secure for cookie in cookies):
        raise Failed(f"a cookie may go over plain HTTP: {cookies}")
    confinement.check_proxy(project)
    say("behind TLS, by the proxy's certificate: report equal, /metrics and /health closed, signed in, cookies Secure")


def _check_names(client: Client) -> None:
    """The web answers under its own names alone, and counts guesses by the address that a proxy names."""
    asked = {name: client.status_code("/health/live", Host=name) for name in ("localhost", "stranger.example")}
    if asked != {"localhost": 200, "stranger.example": 400}:
        raise Failed(f"the web answers under these names: {asked}")
    for address, expected in (("203.0.113.1", {401, 429}), ("203.0.113.2", {401})):
        guess = {"Authorization": "Bearer wrong", "X_Forwarded_For": address}
        tried = {client.status_code("/api/v1/batches", **guess) for _ in range(15 if 429 in expected else 1)}
        if tried != expected:
            raise Failed(f"guesses of {address} are answered with {tried}")
    say("another host name is refused; guesses are counted by the address of the client that the proxy names")


def _sign_in(client: Client) -> list[http.cookiejar.Cookie]:
    """Sign in as a browser does, and return its cookies."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=client.tls), urllib.request.HTTPCookieProcessor(jar)
    )
    browser.addheaders = [("Referer", f"{client.address}/sign-in")]  # without it, a form by HTTPS is refused
    page = browser.open(f"{client.address}/sign-in", timeout=20).read().decode()
    [hidden] = re.findall(r'name="csrf_token" value="([^"]+)"', page)
    form = urllib.parse.urlencode({"csrf_token": hidden, "token": client.token}).encode()
    page = browser.open(f"{client.address}/sign-in", form, timeout=20).read().decode()
    if "/sign-out" not in page:
        raise Failed("signing in by HTTPS did not lead to a page of the lab")
    return list(jar)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument(
        "--gpu", action="store_true", help="build the GPU image as well: 30 GB of disk, a long download"
    )
    gpu = options.parse_args().gpu
    if reason := engine.missing():
        print(f"SKIPPED make containers: {reason}.")
        sys.exit(1 if os.environ.get("CI") == "true" else 0)
    os.umask(0o022)
    isolation.enter(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the kernel ends the rest
    sys.exit(main(gpu=gpu))
