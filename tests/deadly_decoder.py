"""``python -m tests.deadly_decoder DEATHS MEMORY_BYTES SECONDS``: a decoder that dies of some files.

``DEATHS`` is JSON: how the decoder ends over a file, by the file's SHA-256, by a text that the file holds (``text:``
before it), or by ``*`` for every file.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from worker.decoders import program, seccomp

MODULE = (sys.executable, "-E", "-s", "-m", "tests.deadly_decoder")


def command(deaths: dict[str, str]) -> tuple[str, ...]:
    """Return the command that a pool starts instead of the program."""
    return (*MODULE, json.dumps(deaths))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hang() -> None:
    while True:
        time.sleep(60)


def spin() -> None:
    while True:
        pass


def be_slow() -> None:
    """Take longer than a quick image may, and decode the image all the same."""
    time.sleep(1.5)


def die_of_a_bad_address() -> None:
    ctypes.string_at(0)


def be_killed() -> None:
    """Die as when the kernel ends a process because memory is exhausted."""
    os.kill(os.getpid(), signal.SIGKILL)


def exhaust_memory() -> None:
    """Take memory piece by piece, as a decoder does that never stops."""
    taken = []
    while True:
        taken.append(bytes(16 << 20))


def grow() -> None:
    """Take memory within the limit, and decode the image all the same."""
    bytearray(300 << 20)


def raise_what_nobody_foresaw() -> None:
    raise IndexError("nobody foresaw this")


def say_nonsense() -> None:
    os.write(1, b"\xff" * 64)
    hang()


DEATHS: dict[str, Callable[[], None]] = {
    "hang": hang,
    "spin": spin,
    "slow": be_slow,
    "segfault": die_of_a_bad_address,
    "kill": be_killed,
    "memory": exhaust_memory,
    "grow": grow,
    "error": raise_what_nobody_foresaw,
    "nonsense": say_nonsense,
}


def main() -> None:
    deaths = json.loads(sys.argv.pop(1))
    decode = program.decode

    def decode_or_die(data: bytes, request: Any, out: BinaryIO) -> None:
        for key, death in deaths.items():
            holds = key.startswith("text:") and key.removeprefix("text:").encode() in data
            if request is not program._SMALL and (key == "*" or holds or key == sha256(data)):
                DEATHS[death]()
        decode(data, request, out)

    program.decode = decode_or_die
    if "kill" in deaths.values():
        seccomp.confine = lambda: False  # a confined decoder may not even kill itself
    program.main()


if __name__ == "__main__":
    main()
