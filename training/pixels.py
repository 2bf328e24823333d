"""Decoded images on disk: what ``dermq.imaging.prepare`` makes of a source at one size, as one memory-mapped array.

Decoding costs more than a training step has to spare, so it is done once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import imaging, recipes
from training import manifest as manifests

_AHEAD = 256


def load(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> NDArray[np.uint8]:
    """The pixels of ``manifest.of(source)``, ``(n, size, size, 3) uint8``, made in ``folder`` when first asked for.

    The file's name carries the recipe and the hash of the source's files, so a stale one is never read.
    """
    file = path(manifest, source, size, folder)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(manifest, source, size, file, track)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def of_split(
    manifest: manifests.Manifest,
    source: str,
    split: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> NDArray[np.uint8]:
    """The pixels of ``manifest.of(source, split)``, read into memory."""
    wanted = np.array([entry.split == split for entry in manifest.of(source)])
    return np.asarray(load(manifest, source, size, folder, track)[wanted])


def path(manifest: manifests.Manifest, source: str, size: int, folder: Path) -> Path:
    """Where ``load`` keeps the pixels of ``source``."""
    files = "".join(f"{entry.member} {entry.sha256}\n" for entry in manifest.of(source))
    content = hashlib.sha256(files.encode()).hexdigest()
    return folder / f"{source}-{size}-{recipes.RECIPE}-{recipes.RECIPE_VERSION}-{content[:12]}.npy"


def _make(
    manifest: manifests.Manifest, source: str, size: int, file: Path, track: Callable[[Iterable[Any]], Iterable[Any]]
) -> None:
    rows = {entry.member: row for row, entry in enumerate(manifest.of(source))}
    partial = file.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(rows), size, size, 3))
    for member, square in track(_decode(manifests.read_files(manifest.places[source]), size)):
        pixels[rows[member]] = square
    pixels.flush()
    partial.rename(file)


def _decode(files: Iterator[tuple[str, bytes]], size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Decode in threads (Pillow lets go of the lock), a bounded number of files ahead."""
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(files, _AHEAD)):
            squares = threads.map(lambda file: imaging.prepare(file[1], size), batch)
            yield from zip((name for name, _ in batch), squares, strict=True)
