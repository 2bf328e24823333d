"""The stream of training batches: it chooses the images, their sources and their augmentation.

Every batch is a pure function of the seed, the epoch and the step, so a resumed run sees exactly the batches that it
would have seen without the stop. This module does not import TensorFlow, since other processes may compute the batches.
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
"""The number of batches that are computed ahead."""

Batch = tuple[NDArray[np.uint8], NDArray[np.float64]]
"""Images ``(n, s, s, 3)``, and their targets as shares of the seven classes ``(n, 7)``."""


@dataclass(frozen=True)
class Stream:
    """Batches of augmented training images at one size."""

    sources: tuple[Path, ...]
    """Files of pixel arrays: the reference source first, further datasets last."""
    rows: NDArray[np.int64]
    """``(n, sources)``: the row of each training image in each source, -1 where it has none."""
    truth: NDArray[np.int64]
    batch: int
    images: int
    """Images per epoch."""
    class_balance: float
    sharp_share: float
    seed: int
    augmentation: str = "rich"
    mixup: float = 0.0

    @property
    def steps(self) -> int:
        """Steps per epoch. The images of an incomplete last batch are left out."""
        return self.images // self.batch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the training images of ``epoch``, shuffled.

        Each class draws its images in shuffled rounds, which continue from epoch to epoch. So the numbers of draws of
        two images of a class differ by at most one.
        """
        chosen = [
            self._draw_rows(code, epoch * count, count)
            for code, count in enumerate(divide(self.truth, self.images, self.class_balance))
        ]
        return np.random.default_rng((self.seed, 1, epoch)).permutation(np.concatenate(chosen))

    def make(self, epoch: int, step: int) -> Batch:
        """Return batch ``step`` of ``epoch``."""
        chosen = self.order(epoch)[step * self.batch : (step + 1) * self.batch]
        chance = np.random.default_rng((self.seed, 2, epoch, step))
        arrays = [np.load(path, mmap_mode="r") for path in self.sources]
        change = augment.KINDS[self.augmentation]
        images = [change(self._draw(arrays, self.rows[row], chance), chance) for row in chosen]
        return mix(np.stack(images), np.eye(len(taxonomy.CODES))[self.truth[chosen]], self.mixup, chance)

    def run(self, epoch: int, first_step: int, executor: Executor, ahead: int = AHEAD) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from ``first_step`` on; ``executor`` computes ``ahead`` of them in advance."""
        steps = iter(range(first_step, self.steps))
        waiting = deque(executor.submit(self.make, epoch, step) for step in islice(steps, ahead))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(executor.submit(self.make, epoch, step) for step in islice(steps, 1))
            yield batch

    def _draw_rows(self, code: int, first: int, count: int) -> NDArray[np.int64]:
        """Return draws ``first`` to ``first + count`` of the endless sequence of a class's shuffled rounds."""
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


def make_stream(
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
    """Return the stream of the manifest's training images at ``size``; write missing pixel arrays to ``folder``.

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
        sources=tuple(pixels.find_path(manifest, source, size, folder, view=view) for source in sources),
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
    """Apply mixup with probability 0.5: blend every image and its target with another image of the batch.

    The share comes from Beta(mixup, mixup) and is the same for the whole batch. Without ``mixup`` no random number is
    drawn.
    """
    if not mixup or chance.random() < 0.5:
        return images, truth
    share, order = np.float32(chance.beta(mixup, mixup)), chance.permutation(len(images))
    blended = share * images + (1 - share) * images[order]
    return np.round(blended).astype(np.uint8), share * truth + (1 - share) * truth[order]


def divide(truth: NDArray[np.int64], images: int, balance: float) -> list[int]:
    """Divide ``images`` among the classes by ``weigh_classes``; return a count for each class."""
    weights = weigh_classes(truth, balance)
    ends = np.round(np.cumsum(weights) / weights.sum() * images).astype(int)
    return [int(share) for share in np.diff(ends, prepend=0)]


def weigh_classes(truth: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return the sampling weight of each class ``(7,)``: its count to the power ``1 - balance``, not normalised."""
    counts = np.bincount(truth, minlength=len(taxonomy.CODES)).astype(float)
    return np.where(counts > 0, counts ** (1 - balance), 0.0)


def make_executor(processes: int) -> Executor:
    """Return an executor of ``processes`` processes, or of one thread for 0, which is enough for training on a CPU."""
    if processes:
        return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    return ThreadPoolExecutor(1)
