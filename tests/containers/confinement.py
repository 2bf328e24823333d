"""Whether containers are held to what the compose file allows them, seen from the kernel."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.containers.engine import Failed, Project, say

_UNITS = {"m": 2**20, "g": 2**30}
_CAPABILITIES = {"NET_BIND_SERVICE": 1 << 10}
"""Bits of the capabilities that the compose file leaves to a service, as the kernel numbers them."""


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


def check_proxy(project: Project) -> None:
    """Raise Failed when the proxy may do more than bind its ports, or reaches the network of the back."""
    _check_privileges(project, "proxy")
    _check_limits(project, "proxy")
    address = _address(project, "postgres", "back")
    # `bash` connects without a program of its own; the web shows that the server listens.
    reached = {"proxy": project.succeeds("proxy", "timeout", "5", "bash", "-c", f"</dev/tcp/{address}/5432")}
    connect = f"import socket; socket.create_connection(('{address}', 5432), 5)"
    reached["web"] = project.succeeds("web", "python", "-c", connect)
    if reached != {"proxy": False, "web": True}:
        raise Failed(f"who reaches PostgreSQL: {reached}")
    say("the proxy may bind ports below 1024 and nothing else, and does not reach PostgreSQL, which the web does")


def _address(project: Project, service: str, network: str) -> str:
    networks: dict[str, dict[str, str]] = project.inspect(service)["NetworkSettings"]["Networks"]
    return networks[f"{project.name}_{network}"]["IPAddress"]


def _check_privileges(project: Project, service: str) -> None:
    status = Path(f"/proc/{project.pid(service)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    allowed = sum(_CAPABILITIES[name] for name in project.services[service].get("cap_add", []))
    may = int(fields["CapBnd"], 16) | int(fields["CapPrm"], 16) | int(fields["CapInh"], 16)
    # Caddy's image runs as root, which is no more than its one capability.
    if may & ~allowed or fields["NoNewPrivs"] != "1" or (fields["Uid"].split()[0] == "0" and not allowed):
        raise Failed(f"{service} may do too much: {fields}")
    mounts = [line.split() for line in Path(f"/proc/{project.pid(service)}/mountinfo").read_text().splitlines()]
    if not any(mount[4] == "/" and "ro" in mount[5].split(",") for mount in mounts):
        raise Failed(f"{service} may write to its root file system")


def _check_limits(project: Project, service: str) -> None:
    wanted = project.services[service]
    pid = project.pid(service)
    memory = int(_of_kernel(pid, "memory", "memory.limit_in_bytes", "memory.max"))
    if memory != parse_bytes(wanted["mem_limit"]):
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
    return has_default_route(project.execute(service, "cat", "/proc/net/route").decode())


def has_default_route(table: str) -> bool:
    """Return whether a table as ``/proc/net/route`` shows it leads out of the networks of its own."""
    return any(line.split()[1] == "00000000" for line in table.splitlines()[1:])


def parse_bytes(limit: str) -> int:
    """Return the bytes of a limit as compose files write it: ``512m`` or ``4g``."""
    return int(limit[:-1]) * _UNITS[limit[-1]]


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
    folder, version = find_control_group(Path(f"/proc/{pid}/cgroup").read_text(), controller)
    return (folder / (name if version == 1 else name_in_version_2)).read_text().strip()


def find_control_group(groups: str, controller: str) -> tuple[Path, int]:
    """Return the folder of a process's control group, from its ``/proc/PID/cgroup``, and the version of the groups."""
    lines = [line.split(":", 2) for line in groups.splitlines()]
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}"), 1
    [path] = [path for number, _, path in lines if number == "0"]
    return Path(f"/sys/fs/cgroup{path}"), 2


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
