"""Caches the decoded images of a source at one size on disk, as one memory-mapped array.

Decoding in every epoch would slow down training, so each image is decoded only once.
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
"""The view of the whole image, as a worker sees it."""
CENTRE = "centre"
"""The view of the centre, as from a lab that crops its images to a square."""
THROUGH = "through"
_AHEAD = 256

Read = Callable[[bytes, int], NDArray[np.uint8]]
"""A function from a file's bytes and a size to pixels ``(size, size, 3)``."""


def load(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    *,
    view: str = WHOLE,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> NDArray[np.uint8]:
    """Return the pixels of ``manifest.of(source)``, ``(n, size, size, 3) uint8``; write them to ``folder`` if missing.

    ``view`` is a key of VIEWS, or ``through-84`` for images that are squashed to 84 pixels first.
    The name of the file contains the recipe and the hash of the source's files, so an outdated file is never read.
    """
    file = find_path(manifest, source, size, folder, view=view, recipe_version=recipe_version)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(manifest, source, size, file, _reading(view, recipe_version), track)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def load_split(
    manifest: manifests.Manifest,
    source: str,
    split: str,
    size: int,
    folder: Path,
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    *,
    view: str = WHOLE,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> NDArray[np.uint8]:
    """Return the pixels of ``manifest.of(source, split)``, read into memory."""
    wanted = np.array([entry.split == split for entry in manifest.of(source)], bool)
    images = load(manifest, source, size, folder, track, view=view, recipe_version=recipe_version)
    return np.asarray(images[wanted])


def find_path(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    folder: Path,
    *,
    view: str = WHOLE,
    recipe_version: int = recipes.RECIPE_VERSION,
) -> Path:
    """Return the path of the file in which ``load`` stores the pixels of ``source``."""
    files = "".join(f"{entry.member} {entry.sha256}\n" for entry in manifest.of(source))
    content = hashlib.sha256(files.encode()).hexdigest()
    seen = f"{size}" if view == WHOLE else f"{size}-{view}"
    return folder / f"{source}-{seen}-{recipes.RECIPE}-{recipe_version}-{content[:12]}.npy"


def _make(
    manifest: manifests.Manifest,
    source: str,
    size: int,
    file: Path,
    read: Read,
    track: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    rows = {entry.member: row for row, entry in enumerate(manifest.of(source))}
    partial = file.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(rows), size, size, 3))
    for member, square in track(_decode(manifests.read_files(manifest.places[source]), size, read)):
        pixels[rows[member]] = square
    pixels.flush()
    partial.rename(file)


def _decode(files: Iterator[tuple[str, bytes]], size: int, read: Read) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Decode in threads, since Pillow releases the GIL; at most ``_AHEAD`` files are in memory."""
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(files, _AHEAD)):
            squares = threads.map(lambda file: read(file[1], size), batch)
            yield from zip((name for name, _ in batch), squares, strict=True)


def _reading(view: str, recipe_version: int) -> Read:
    """Return the function that decodes a file to a square by ``view`` and a version of the recipe."""

    def decode(data: bytes) -> Image.Image:
        return imaging.read(data, max_pixels=MAX_PIXELS, recipe_version=recipe_version).image

    kind, _, side = view.partition("-")
    if kind == THROUGH:
        return lambda data, size: imaging.squash(Image.fromarray(imaging.squash(decode(data), int(side))), size)
    cut = VIEWS[view]
    return lambda data, size: imaging.squash(cut(decode(data)), size)


def _cut_centre(image: Image.Image) -> Image.Image:
    """Return the middle three quarters of the width, which is a square in a frame of 4 to 3, squashed or not."""
    margin = image.width // 8
    return image.crop((margin, 0, image.width - margin, image.height))


VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {WHOLE: lambda image: image, CENTRE: _cut_centre}
