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

Batch = tuple[NDArray[np.uint8], NDArray[np.float64]]
"""Images ``(n, s, s, 3)``, and the truth of each as shares of the seven classes ``(n, 7)``."""


@dataclass(frozen=True)
class Stream:
    """Batches of augmented training images at one size."""

    sources: tuple[Path, ...]
    """Pixel arrays, the reference source first, further datasets last."""
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
    mixup: float = 0.0

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
        """Batch ``step`` of ``epoch``."""
        chosen = self.order(epoch)[step * self.batch : (step + 1) * self.batch]
        chance = np.random.default_rng((self.seed, 2, epoch, step))
        arrays = [np.load(path, mmap_mode="r") for path in self.sources]
        change = augment.KINDS[self.augmentation]
        images = [change(self._draw(arrays, self.rows[row], chance), chance) for row in chosen]
        return mix(np.stack(images), np.eye(len(taxonomy.CODES))[self.truth[chosen]], self.mixup, chance)

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
        first, *others = np.flatnonzero(rows >= 0)
        place = others[int(which * len(others))] if sharp and others else first
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
    mixup: float = 0.0,
    further: tuple[str, ...] = (),
    through: int | None = None,
) -> Stream:
    """The stream of the manifest's training images at ``size``; pixel arrays are made in ``folder`` where missing.

    Raises manifest.Mismatch when a source of ``further`` is not in the manifest.
    """
    entries = manifest.of(manifest.reference, "train")
    entries += [entry for source in further for entry in manifest.with_reference(source).of(source, manifests.PRETRAIN)]
    own = manifest.trained_on if through is None else [manifest.reference]
    view = pixels.WHOLE if through is None else f"{pixels.THROUGH}-{through}"
    sources = [*own, *further]
    rows = np.full((len(entries), len(sources)), -1, np.int64)
    for place, source in enumerate(sources):
        pixels.load(manifest, source, size, folder, view=view)
        found = {entry.image_id: row for row, entry in enumerate(manifest.of(source))}
        rows[:, place] = [found.get(entry.image_id, -1) for entry in entries]
    return Stream(
        sources=tuple(pixels.path(manifest, source, size, folder, view=view) for source in sources),
        rows=rows,
        truth=np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries]),
        batch=batch,
        images=images or len(entries),
        class_balance=class_balance,
        sharp_share=sharp_share,
        seed=seed,
        augmentation=augmentation,
        mixup=mixup,
    )


def mix(
    images: NDArray[np.uint8], truth: NDArray[np.float64], mixup: float, chance: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Half of the time, blend every image and its truth with another of the batch, by a share from Beta(mixup, mixup).

    One share a batch; nothing is drawn without ``mixup``.
    """
    if not mixup or chance.random() < 0.5:
        return images, truth
    share, order = np.float32(chance.beta(mixup, mixup)), chance.permutation(len(images))
    blended = share * images + (1 - share) * images[order]
    return np.round(blended).astype(np.uint8), share * truth + (1 - share) * truth[order]


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
