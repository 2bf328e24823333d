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
from PIL import Image

from dermq import imaging, recipes
from training import manifest as manifests

MAX_PIXELS = 50_000_000
WHOLE = "whole"
"""What a worker sees of a file."""
CENTRE = "centre"
"""What a lab sends that cuts its pictures square."""
THROUGH = "through"
_AHEAD = 256

Read = Callable[[bytes, int], NDArray[np.uint8]]
"""From a file's bytes and a size to ``(size, size, 3)``."""


def load(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    *,
    view: str = WHOLE,
) -> NDArray[np.uint8]:
    """The pixels of ``manifest.of(source)``, ``(n, size, size, 3) uint8``, made in ``folder`` when first asked for.

    ``view`` is a key of VIEWS, or ``through-84`` for images squashed to 84 pixels first, whatever they hold.
    The file's name carries the recipe and the hash of the source's files, so a stale one is never read.
    """
    file = path(manifest, source, size, folder, view=view)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(manifest, source, size, file, view, track)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def of_split(
    manifest: manifests.Manifest,
    source: str,
    split: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    *,
    view: str = WHOLE,
) -> NDArray[np.uint8]:
    """The pixels of ``manifest.of(source, split)``, read into memory."""
    wanted = np.array([entry.split == split for entry in manifest.of(source)], bool)
    return np.asarray(load(manifest, source, size, folder, track, view=view)[wanted])


def path(manifest: manifests.Manifest, source: str, size: int, folder: Path, *, view: str = WHOLE) -> Path:
    """Where ``load`` keeps the pixels of ``source``."""
    files = "".join(f"{entry.member} {entry.sha256}\n" for entry in manifest.of(source))
    content = hashlib.sha256(files.encode()).hexdigest()
    seen = f"{size}" if view == WHOLE else f"{size}-{view}"
    return folder / f"{source}-{seen}-{recipes.RECIPE}-{recipes.RECIPE_VERSION}-{content[:12]}.npy"


def _make(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    file: Path,
    view: str,
    track: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    rows = {entry.member: row for row, entry in enumerate(manifest.of(source))}
    partial = file.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(rows), size, size, 3))
    for member, square in track(_decode(manifests.read_files(manifest.places[source]), size, _reading(view))):
        pixels[rows[member]] = square
    pixels.flush()
    partial.rename(file)


def _decode(files: Iterator[tuple[str, bytes]], size: int, read: Read) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Decode in threads (Pillow lets go of the lock), a bounded number of files ahead."""
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(files, _AHEAD)):
            squares = threads.map(lambda file: read(file[1], size), batch)
            yield from zip((name for name, _ in batch), squares, strict=True)


def _reading(view: str) -> Read:
    """How ``view`` makes a square of a file's bytes."""
    kind, _, side = view.partition("-")
    if kind == THROUGH:
        return lambda data, size: imaging.squash(Image.fromarray(imaging.prepare(data, int(side))), size)
    return VIEWS[view]


def _centre(data: bytes, size: int) -> NDArray[np.uint8]:
    """The middle of the frame, three quarters of its width: the square in a frame of 4 to 3, squashed or not."""
    image = imaging.decode(data, max_pixels=MAX_PIXELS)
    margin = image.width // 8
    return imaging.squash(image.crop((margin, 0, image.width - margin, image.height)), size)


VIEWS: dict[str, Read] = {WHOLE: imaging.prepare, CENTRE: _centre}
