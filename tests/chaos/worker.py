"""``python -m worker`` with faults on request: an engine of known speed, images that kill a decoder, lost messages.

Environment variables control the changes, because the pool process imports this module again, as its parent did.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery
from numpy.typing import NDArray

from dermq import bundles
from tests import deadly_decoder
from worker import __main__ as program
from worker.classify import engines
from worker.classify.engines import Outputs
from worker.decoders import decoder

RATE = "CHAOS_ENGINE_IMAGES_PER_SECOND"
POISON = "CHAOS_POISON"
"""How decoders die of some files, as ``tests.deadly_decoder`` takes it."""
MESSAGES = "CHAOS_MESSAGES"
DEADLY_PIXELS = "CHAOS_DEADLY_PIXELS"
"""The SHA-256 of an image's pixels, and how the engine's process ends over them."""
AT_WORK = "CHAOS_AT_WORK"
"""The environment variable with the path of a file that exists while the engine computes a step."""


class Engine:
    """Takes a known time per image. Returns the golden outputs for golden inputs, else a class from the mean pixel."""

    name = "chaos"
    files: tuple[str, ...] = (bundles.GOLDEN,)
    tolerance = 0.0

    def __init__(self, images_per_second: float) -> None:
        self._seconds = 1 / images_per_second
        self._deadly: list[str] = json.loads(os.environ.get(DEADLY_PIXELS, "[]"))

    def load(self, bundle: bundles.Bundle) -> None:
        with np.load(bundle.path / bundles.GOLDEN) as golden:
            self._golden = golden["pixels"]
            self._outputs = Outputs(golden["probabilities"], golden["ood_score"])

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        if np.array_equal(pixels, self._golden):
            return self._outputs
        with at_work():
            time.sleep(len(pixels) * self._seconds)
        if self._deadly and self._deadly[0] in {deadly_decoder.sha256(one.tobytes()) for one in pixels}:
            deadly_decoder.DEATHS[self._deadly[1]]()
        classes = pixels.reshape(len(pixels), -1).mean(axis=1).astype(int) % 7
        return Outputs(np.eye(7, dtype=np.float32)[classes] * 0.93 + 0.01, np.zeros(len(pixels), np.float32))


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Create the file of ``AT_WORK`` for the length of the block."""
    if told := os.environ.get(AT_WORK):
        Path(told).touch()
        yield
        Path(told).unlink(missing_ok=True)
    else:
        yield


def deliver(times: list[int]) -> None:
    """Send each message as often as the list says, in turn: ``[3]`` triples them, ``[0, 1]`` loses every second."""
    send, sent = Celery.send_task, count()

    def send_times(*arguments: Any, **options: Any) -> None:
        for _ in range(times[next(sent) % len(times)]):
            send(*arguments, **options)

    Celery.send_task = send_times


if rate := os.environ.get(RATE):
    images_per_second = float(rate)
    engines.create = lambda choice, *, step_images: Engine(images_per_second)
if told := os.environ.get(POISON):
    decoder.COMMAND = deadly_decoder.command(json.loads(told))
if told := os.environ.get(MESSAGES):
    deliver(json.loads(told))

if __name__ == "__main__":
    sys.exit(program.main())
