"""Processes, mounts, podman's state and a network of a run's own. The kernel ends them with the run's first process.

So a run leaves nothing on the machine but its folder, even if it is killed: no container, no bridge, no name server of
podman, no rule of a firewall. Runs of other clones and other containers of the machine are not seen and not touched.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_INSIDE = "DERMQ_CONTAINERS_INSIDE"
"""Variable that tells the program that it was started again in namespaces of its own."""
RUN = Path("/run/dermq-containers")
"""Podman's own state of a run, which is on no disk. Podman takes at most 50 characters."""
_PRIVATE = (RUN, *(Path("/run") / name for name in ("containers", "libpod", "netns", "runc")), Path("/dev/shm"))
"""Folders in which podman, its networks and runc keep what is running."""
_CLONE_NEWNET = 0x40000000


def enter(arguments: list[str]) -> None:
    """Start this program again as the first process of its namespaces, unless it is that already.

    When `unshare` is killed, so is the first process, and with it every process of the run.
    """
    if os.environ.get(_INSIDE) != "yes":
        os.environ[_INSIDE] = "yes"
        options = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp("unshare", ["unshare", *options, sys.executable, "-m", "tests.containers", *arguments])
    del os.environ[_INSIDE]
    for folder in _PRIVATE:
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)


def leave_network() -> None:
    """Move this process, and those that it starts from now on, into a network that has nothing but a loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
