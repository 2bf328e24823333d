"""Whether containers are held to what the compose file allows them, seen from the kernel."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.containers.engine import Failed, Project, say

_UNITS = {"m": 2**20, "g": 2**30}


def check(project: Project, services: tuple[str, ...]) -> None:
    """Raise Failed when a container may do or reach more than the compose file says."""
    for service in services:
        image = project.services[service]["image"]
        if image.startswith("${") and "@sha256:" not in project.inspect(service)["ImageName"]:
            raise Failed(f"{service} runs an image that is not pinned")
        _check_privileges(project, service)
        _check_limits(project, service)
    _check_secrets(project, services)
    if not _reaches_out(project, "web") or _reaches_out(project, "intake"):
        raise Failed("the web has no way out, or the network of the back has one")
    say("each container: no capability, no new privileges, not root, root file system read-only, limits set, no secret")


def _check_privileges(project: Project, service: str) -> None:
    status = Path(f"/proc/{project.pid(service)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if int(fields["CapBnd"], 16) or fields["NoNewPrivs"] != "1" or fields["Uid"].split()[0] == "0":
        raise Failed(f"{service} may do too much: {fields}")
    mounts = [line.split() for line in Path(f"/proc/{project.pid(service)}/mountinfo").read_text().splitlines()]
    if not any(mount[4] == "/" and "ro" in mount[5].split(",") for mount in mounts):
        raise Failed(f"{service} may write to its root file system")


def _check_limits(project: Project, service: str) -> None:
    wanted = project.services[service]
    memory = int(wanted["mem_limit"][:-1]) * _UNITS[wanted["mem_limit"][-1]]
    pid = project.pid(service)
    if int(_of_kernel(pid, "memory", "memory.limit_in_bytes", "memory.max")) != memory:
        raise Failed(f"{service} has another limit of memory than {wanted['mem_limit']}")
    if int(_of_kernel(pid, "pids", "pids.max", "pids.max")) != wanted["pids_limit"]:
        raise Failed(f"{service} has another limit of processes than {wanted['pids_limit']}")


def _check_secrets(project: Project, services: tuple[str, ...]) -> None:
    """Neither password stands in an argument or the environment of a container, or on a process's command line."""
    passwords = [path.read_text().strip() for path in (project.folder / "secrets").iterdir()]
    shown = [project.engine.podman("inspect", project.container(service)) for service in services]
    shown += _command_lines()
    if any(password in text for password in passwords for text in shown):
        raise Failed("a password can be read from outside")


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            yield path.read_text(errors="replace")


def _reaches_out(project: Project, service: str) -> bool:
    """Whether a container has a default route."""
    routes = project.execute(service, "cat", "/proc/net/route").decode().splitlines()[1:]
    return any(line.split()[1] == "00000000" for line in routes)


def tell_sizes(project: Project, services: tuple[str, ...], when: str) -> None:
    """Print the most memory each container's processes took, beside its limit. Raises Failed when one ran into it."""
    told = []
    for service in services:
        pid = project.pid(service)
        limit = int(_of_kernel(pid, "memory", "memory.limit_in_bytes", "memory.max"))
        most, tasks = _peak_bytes(pid), _of_kernel(pid, "pids", "pids.current", "pids.current")
        told.append(f"{service} {most / 2**20:.0f} of {limit / 2**20:.0f} ({tasks} tasks)")
        killed = re.search(r"^oom_kill (\d+)", _of_kernel(pid, "memory", "memory.oom_control", "memory.events"), re.M)
        if most >= limit or killed is None or killed[1] != "0":
            raise Failed(f"{service} ran into its limit of memory: {told[-1]} MiB")
    say(f"memory, MiB, {when}: {', '.join(told)}")


def _of_kernel(pid: int, controller: str, name: str, name_in_version_2: str) -> str:
    """A file of the control group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{name}").read_text().strip()
    return Path(f"/sys/fs/cgroup{path}/{name_in_version_2}").read_text().strip()


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
