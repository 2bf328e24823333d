"""The filter of system calls lets threads begin, which a library needs, and no process."""

import subprocess
import sys

import pytest

from dermq.settings import ROOT

_LIMITED = """
import resource, threading
resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from worker.decoders import confinement
confinement.give_up_rights(2**31)
print("confined")
"""

_PROGRAM = """
import ctypes, os, subprocess, threading
from worker.decoders import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
if not seccomp.confine():
    print("no filter")
    raise SystemExit
began = threading.Thread(target=lambda: print("thread"))
began.start()
began.join()
for begin in (os.fork, lambda: subprocess.Popen(["true"]), lambda: open("/etc/passwd")):
    try:
        begin()
        print("allowed")
    except OSError as err:
        print(type(err).__name__)
"""


def test_a_confined_program_begins_threads_but_no_process_and_opens_no_file() -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True)
    if ran.stdout == "no filter\n":
        pytest.skip("needs a Linux with seccomp")
    assert ran.stdout.split() == ["thread", *["PermissionError"] * 3], ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not know every limit")
def test_a_decoder_starts_where_the_system_has_lower_limits() -> None:
    ran = subprocess.run([sys.executable, "-c", _LIMITED], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "confined\n", ran.stderr
