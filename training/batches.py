"""The stream of training batches: which images, from which source, changed how.

Every batch is a pure function of the seed, the epoch and the step, so a run that was stopped goes on with exactly the
batches that it would have had. No TensorFlow here: batches may be made in other processes.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import augment, pixels
from training import manifest as manifests

AHEAD = 4
"""Batches made before they are asked for, for each process."""

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Stream:
    """Batches of augmented training images at one size."""

    sources: tuple[Path, ...]
    """Pixel arrays, the reference source first."""
    rows: NDArray[np.int64]
    """``(n, sources)``: the row of each training image in each source, -1 where it has none."""
    truth: NDArray[np.int64]
    batch: int
    images: int
    """Images an epoch."""
    class_balance: float
    sharp_share: float
    seed: int
    augmentation: str = "rich"

    @property
    def steps(self) -> int:
        """Steps an epoch; images that do not fill a batch are left out."""
        return self.images // self.batch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The training images of ``epoch``, shuffled.

        Each class goes through its images in shuffled rounds that run on from epoch to epoch, so every image is drawn
        as often as its class mates, give or take one.
        """
        chosen = [
            self._turns(code, epoch * count, count)
            for code, count in enumerate(shares(self.truth, self.images, self.class_balance))
        ]
        return np.random.default_rng((self.seed, 1, epoch)).permutation(np.concatenate(chosen))

    def make(self, epoch: int, step: int) -> Batch:
        """Batch ``step`` of ``epoch``: pixels ``(batch, s, s, 3) uint8`` and class numbers ``(batch,)``."""
        chosen = self.order(epoch)[step * self.batch : (step + 1) * self.batch]
        chance = np.random.default_rng((self.seed, 2, epoch, step))
        arrays = [np.load(path, mmap_mode="r") for path in self.sources]
        change = augment.KINDS[self.augmentation]
        images = [change(self._draw(arrays, self.rows[row], chance), chance) for row in chosen]
        return np.stack(images), self.truth[chosen]

    def run(self, epoch: int, first_step: int, executor: Executor, ahead: int = AHEAD) -> Iterator[Batch]:
        """The batches of ``epoch`` from ``first_step`` on, made ahead by ``executor``."""
        steps = iter(range(first_step, self.steps))
        waiting = deque(executor.submit(self.make, epoch, step) for step in islice(steps, ahead))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(executor.submit(self.make, epoch, step) for step in islice(steps, 1))
            yield batch

    def _turns(self, code: int, first: int, count: int) -> NDArray[np.int64]:
        """Turns ``first`` to ``first + count`` of a class's endless shuffled rounds."""
        members = np.flatnonzero(self.truth == code)
        if not len(members):
            return members
        rounds = range(first // len(members), (first + count) // len(members) + 1)
        drawn = [np.random.default_rng((self.seed, 3, code, turn)).permutation(members) for turn in rounds]
        start = first - rounds[0] * len(members)
        return np.concatenate(drawn)[start : start + count]

    def _draw(
        self, arrays: list[NDArray[np.uint8]], rows: NDArray[np.int64], chance: np.random.Generator
    ) -> NDArray[np.uint8]:
        sharp, which = chance.random() < self.sharp_share, chance.random()
        others = [place for place in range(1, len(rows)) if rows[place] >= 0]
        place = others[int(which * len(others))] if sharp and others else 0
        return np.asarray(arrays[place][rows[place]])


def stream(
    manifest: manifests.Manifest,
    size: int,
    folder: Path,
    *,
    batch: int,
    images: int | None,
    class_balance: float,
    sharp_share: float,
    seed: int,
    augmentation: str = "rich",
) -> Stream:
    """The stream of the manifest's training images at ``size``; pixel arrays are made in ``folder`` where missing."""
    entries = manifest.of(manifest.reference, "train")
    rows = np.full((len(entries), len(manifest.places)), -1, np.int64)
    for place, source in enumerate(manifest.places):
        pixels.load(manifest, source, size, folder)
        found = {entry.image_id: row for row, entry in enumerate(manifest.of(source))}
        rows[:, place] = [found.get(entry.image_id, -1) for entry in entries]
    return Stream(
        sources=tuple(pixels.path(manifest, source, size, folder) for source in manifest.places),
        rows=rows,
        truth=np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries]),
        batch=batch,
        images=images or len(entries),
        class_balance=class_balance,
        sharp_share=sharp_share,
        seed=seed,
        augmentation=augmentation,
    )


def shares(truth: NDArray[np.int64], images: int, balance: float) -> list[int]:
    """How many of ``images`` each class gives, by ``proportions``."""
    weights = proportions(truth, balance)
    ends = np.round(np.cumsum(weights) / weights.sum() * images).astype(int)
    return [int(share) for share in np.diff(ends, prepend=0)]


def proportions(truth: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """How much of each class is drawn, ``(7,)``: its count to the power ``1 - balance``, not summing to 1."""
    counts = np.bincount(truth, minlength=len(taxonomy.CODES)).astype(float)
    return np.where(counts > 0, counts ** (1 - balance), 0.0)


def executor(processes: int) -> Executor:
    """One background thread for 0 ``processes``, which is enough beside a CPU; else that many processes."""
    if processes:
        return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    return ThreadPoolExecutor(1)
