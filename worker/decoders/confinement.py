"""Takes away the rights of a decoder before it reads a file, so that a file that exploits a library gains nothing.

It keeps two pipes, memory up to a limit, and processor time. It cannot open a file or a socket, write a file, start a
process, or gain rights by running a program. Everything that it needs must be imported before.
"""

import ctypes
import os
import resource
import signal
import sys

from worker.decoders import seccomp

NOBODY = 65_534
"""The user and the group that own nothing, on every Linux."""
MOST_THREADS = 1024
"""Of all programs of the user together, as the system counts them. The filter allows no other process."""
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def give_up_rights(memory_bytes: int) -> None:
    """Keep standard input and output, ``memory_bytes`` of address space, and no right that can be given up."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.closerange(sys.stderr.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, MOST_THREADS)
    if sys.platform == "linux":
        _give_up_on_linux()
    _limit(resource.RLIMIT_NOFILE, 0)
    if not seccomp.confine():  # without the filter, threads cannot be told from processes
        _limit(resource.RLIMIT_NPROC, 0)


def _limit(which: int, most: int) -> None:
    """Set a limit for good, or keep a lower one, which may not be raised. macOS does not know every limit."""
    highest = resource.getrlimit(which)[1]
    if highest != resource.RLIM_INFINITY:
        most = min(most, highest)
    try:
        resource.setrlimit(which, (most, most))
    except (ValueError, OSError):
        if sys.platform == "linux":
            raise


def _give_up_on_linux() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # A decoder dies with the thread that started it, so none outlives a worker that is killed. Changing the user clears
    # this, so it comes after.
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
