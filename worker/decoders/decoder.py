"""A decoder as its worker sees it: a program on the other side of two pipes, which may die or never answer."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dermq import errors, notes
from dermq.settings import ROOT
from worker.decoders.frames import READY, Answer, Kind, Request
from worker.decoders.pictures import Picture

COMMAND: tuple[str, ...] = (sys.executable, "-E", "-s", "-m", "worker.decoders.program")
START_SECONDS = 60.0
_PIPE_BYTES = 1 << 20
"""A file and its pixels mostly fit into pipes of this size, so that neither side waits for the other to read."""
_SMALL_PIXELS = 4_000_000
"""After an image of more pixels, and after one that could not be decoded, the peak is looked at."""
_LOOK_EVERY = 16
"""After this many images it is looked at whatever they were."""
_GROWTH_KB = 131_072
"""A decoder whose peak memory has grown by more than 128 MB is replaced, so that it gives the memory back."""


class Lost(Exception):
    """Raised when a decoder died, was killed, did not answer in time, or answered invalidly: it must be replaced."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Decoder:
    """One decoder program. It decodes one image at a time; any thread may kill it."""

    def __init__(self, command: Sequence[str], *, memory_bytes: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            (*command, str(memory_bytes), str(seconds)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,  # where Python finds the program, which then leaves it
            env={"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # a signal to the worker's process group must not end an image
        )
        assert self._process.stdin and self._process.stdout
        self._memory_bytes = memory_bytes
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
            with contextlib.suppress(OSError, AttributeError):  # a limit of the system, or no Linux
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.decoded = 0
        """How many files it was given."""
        self._peak_kb = 0
        self._may_have_grown = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it has given up its rights. Raises Lost."""
        said = bytearray(len(READY))
        self._receive(memoryview(said), time.monotonic() + START_SECONDS)
        if said != READY:
            raise Lost("decoder_crashed", "The decoder did not start.")
        self._peak_kb = self._read_peak_kb()

    def send(self, request: Request, data: bytes, until: float) -> None:
        """Send a file. Raises Lost."""
        self.decoded += 1
        self._send(request.pack(len(data)), until)
        self._send(data, until)

    def wait_for_answer(self, until: float) -> bool:
        """Wait until it begins to answer, or has died; return False when it has done neither at ``until``."""
        return self._wait(self._from, select.POLLIN, until)

    def receive(self, size: int, until: float) -> Picture:
        """Receive the answer. Raises Permanent when the file cannot be decoded, and Lost."""
        header = bytearray(Answer.LAYOUT.size)
        self._receive(memoryview(header), until)
        try:
            answer = Answer.unpack(bytes(header), pixel_bytes=size * size * 3)
            self._may_have_grown |= answer.kind is not Kind.DECODED or answer.width * answer.height > _SMALL_PIXELS
            text = bytearray(answer.text_bytes)
            self._receive(memoryview(text), until)
            if answer.kind is not Kind.DECODED:
                raise self._make_error(answer.kind, bytes(text))
            found = notes.from_json(json.loads(text))
        except (ValueError, TypeError) as err:
            raise Lost("decoder_crashed", f"The decoder answered nonsense: {err}.") from err
        pixels = np.empty((size, size, 3), np.uint8)
        thumbnail = bytearray(answer.thumbnail_bytes)
        self._receive(pixels.data.cast("B"), until)
        self._receive(memoryview(thumbnail), until)
        return Picture(pixels, (answer.width, answer.height), found, bytes(thumbnail))

    def has_grown(self) -> bool:
        """Return whether its peak memory has grown so much that it must be replaced.

        The peak is that of this program alone. ``ru_maxrss`` would begin with what its worker had when it started it.
        """
        looks, self._may_have_grown = self._may_have_grown or self.decoded % _LOOK_EVERY == 0, False
        return looks and self._read_peak_kb() > self._peak_kb + _GROWTH_KB

    def kill(self) -> None:
        """Kill it at once. Safe to do twice and from any thread; ``close`` must follow."""
        self._process.kill()

    def close(self) -> None:
        """Kill it, wait for its end and close the pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def _make_error(self, kind: Kind, text: bytes) -> Exception:
        """Return what an answer without pixels means."""
        if kind is Kind.REFUSED:
            code, detail = json.loads(text)
            return errors.Permanent(str(code)[:50], str(detail)[:1000])
        if kind is Kind.OUT_OF_MEMORY:
            megabytes = self._memory_bytes / 1e6
            return Lost("out_of_memory", f"Decoding needs more memory than a decoder may use, {megabytes:,.0f} MB.")
        return Lost("decoder_crashed", f"Decoding failed unexpectedly: {text.decode(errors='replace')}")

    def _read_peak_kb(self) -> int:
        """Return the greatest resident memory so far, in kB; 0 where the system does not tell."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
        return 0

    def _send(self, data: bytes, until: float) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._to, left) :]
            except BlockingIOError:
                if not self._wait(self._to, select.POLLOUT, until):
                    raise self._make_late() from None
            except OSError as err:  # the other end is closed
                raise self._make_died() from err

    def _receive(self, into: memoryview, until: float) -> None:
        while into:
            try:
                read = os.readv(self._from, [into])
            except BlockingIOError:
                if not self._wait(self._from, select.POLLIN, until):
                    raise self._make_late() from None
                continue
            if not read:
                raise self._make_died()
            into = into[read:]

    @staticmethod
    def _wait(pipe: int, event: int, until: float) -> bool:
        poll = select.poll()
        poll.register(pipe, event)
        return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))

    def _make_late(self) -> Lost:
        self.kill()
        return Lost("decode_timeout", "The image was not decoded within the time that is allowed for one.")

    def _make_died(self) -> Lost:
        self.kill()
        status = self._process.wait()
        with contextlib.suppress(ValueError):
            return Lost("decoder_crashed", f"The decoder was ended by {signal.Signals(-status).name}.")
        return Lost("decoder_crashed", f"The decoder ended with status {status}.")
