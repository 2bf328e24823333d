"""Shows the augmentation: a sheet and an animation of random variants.

The files show lesions of HAM10000 (CC BY-NC 4.0), so they belong in the folder ``out/``, which git ignores. A file with
the citation and the licence is written next to them.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy
from training import augment, datasets, figures, pixels
from training import manifest as manifests

IMAGES = 25
DRAWS = 3
LESIONS = 9
FRAMES = 600
FRAMES_PER_SECOND = 10
SIZE = 128
"""The side of a picture in pixels."""

Pixels = NDArray[np.uint8]
Track = Callable[[Iterable[Any]], Iterable[Any]]


def write(
    manifest: manifests.Manifest, kind: str, data: Path, folder: Path, *, frames: int = FRAMES, track: Track = iter
) -> None:
    """Write the sheet and the animation of ``kind``, a key of ``augment.KINDS``, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    change = augment.KINDS[kind]
    entries, images = _choose(manifest, IMAGES, data)
    chance = np.random.default_rng(1)
    rows = [[image, *(change(image, chance) for _ in range(DRAWS))] for image in images]
    figures.draw_variants(rows, [entry.diagnosis for entry in entries], folder / f"augmentation-{kind}.png")
    _, lesions = _choose(manifest, LESIONS, data)
    shown = _make_frames(lesions, change, frames, chance)
    figures.write_animation(track(shown), folder / f"augmentation-{kind}.gif", frames_per_second=FRAMES_PER_SECOND)
    note = f"{datasets.HAM10000.citation}\nLicence of the images: {datasets.HAM10000.licence}\n"
    (folder / "LICENCE.txt").write_text(note, encoding="utf-8")


def _choose(manifest: manifests.Manifest, count: int, data: Path) -> tuple[list[manifests.Entry], list[Pixels]]:
    """Choose training images of different lesions, taking the classes in turn."""
    entries = manifest.of(manifest.reference)
    images = pixels.load(manifest, manifest.reference, SIZE, data)
    by_code = {code: iter(_list_lesions(entries, code)) for code in taxonomy.CODES}
    rows: list[int] = []
    while len(rows) < count and by_code:
        for code in list(by_code):
            row = next(by_code[code], None)
            if row is None:
                del by_code[code]
            elif len(rows) < count:
                rows.append(row)
    return [entries[row] for row in rows], [np.asarray(images[row]) for row in rows]


def _list_lesions(entries: list[manifests.Entry], code: str) -> list[int]:
    """Return one row for each training lesion of a class."""
    places = enumerate(entries)
    rows = {e.lesion_id: row for row, e in places if (e.split, e.diagnosis) == ("train", code)}
    return list(rows.values())


def _make_frames(
    lesions: list[Pixels],
    change: Callable[[Pixels, np.random.Generator], Pixels],
    frames: int,
    chance: np.random.Generator,
) -> Iterator[Pixels]:
    """Yield frames with a new variant of every lesion, three in a row; the first frame shows the original images."""
    for number in range(frames):
        drawn = lesions if number == 0 else [change(lesion, chance) for lesion in lesions]
        yield np.concatenate([np.concatenate(drawn[start : start + 3], axis=1) for start in range(0, len(drawn), 3)])
