"""The manifest lists every image file for training, with its metadata, its split and its hash.

HAM10000 shows many lesions in several images, so a split by image leaks. All images of a lesion are in one split.
The manifest holds no paths, so its hash is the same on every machine. A second file holds the paths.
"""

import csv
import hashlib
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath

from dermq import errors, formats, taxonomy
from training import datasets, duplicates

SPLITS = ("train", "val", "test")
PRETRAIN = "pretrain"
"""The split of every image of a further dataset: never val, never test."""
JUDGED_ONLY = ("originals_600x450",)
"""Sources that are never used for training: this one holds only 50 melanomas and 50 nevi."""
SPLIT_SHARES = {"test": 0.205, "val": 0.08}
"""The shares of lesions when the metadata has no split; the other lesions are for training."""
MANIFEST = "manifest.csv"
PLACES = "places.json"
_SUFFIXES = (".jpg", ".jpeg", ".png")
_MAX_PIXELS = 50_000_000


class Mismatch(errors.DermqError):
    """Raised when images and metadata do not match."""


@dataclass(frozen=True)
class Subject:
    """One image's row of the metadata."""

    image_id: str
    lesion_id: str
    diagnosis: str
    confirmation: str
    age: str
    sex: str
    site: str
    split: str


@dataclass(frozen=True)
class Entry(Subject):
    """One file: the image that it shows, its source, its name in the source, and its hash."""

    source: str
    member: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All entries, sorted by source and image. The first source is complete; figures are measured on it."""

    entries: tuple[Entry, ...]
    places: dict[str, list[str]]
    """The archives or folders of each source."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(_text(self.entries).encode()).hexdigest()

    @property
    def reference(self) -> str:
        """The complete source."""
        return next(iter(self.places))

    @property
    def further(self) -> list[str]:
        """The sources of other datasets, which are only for training."""
        return [source for source in self.places if source in datasets.FURTHER]

    @property
    def trained_on(self) -> list[str]:
        """The sources from which training reads HAM10000's images, the reference first."""
        return [source for source in self.places if source not in (*self.further, *JUDGED_ONLY)]

    def with_reference(self, source: str) -> "Manifest":
        """Return the manifest with ``source`` as the reference, even if incomplete. Raises Mismatch if unknown."""
        if source not in self.places:
            raise Mismatch("unknown_source", f"No source {source!r}; there are {', '.join(self.places)}.")
        return replace(self, places={source: self.places[source]} | self.places)

    def of(self, source: str, split: str | None = None) -> list[Entry]:
        """Return the entries of ``source``, or of one split of it, in the manifest's order."""
        return [entry for entry in self.entries if entry.source == source and split in (None, entry.split)]


def prepare(
    metadata: Path, places: dict[str, list[Path]], track: Callable[[Iterable[str]], Iterable[str]] = iter
) -> Manifest:
    """Match the files of ``places``, which maps sources to archives or folders, with ``metadata``.

    The first source must hold every image of the metadata. Sources of ``datasets.FURTHER`` have their own metadata.
    ``track`` may show progress over the files' names.
    Raises Mismatch for an image without metadata or the reverse, an unknown diagnosis, a lesion or identical files in
    two splits, two files of one image in one source, a file that is not an image, and an image or a lesion of a further
    dataset that is also in HAM10000, by its id or as a near-duplicate.
    """
    subjects = {subject.image_id: subject for subject in read_metadata(metadata)}
    entries: list[Entry] = []
    for source, paths in places.items():
        known = read_further(paths, subjects.values()) if source in datasets.FURTHER else subjects
        found = [entry for path in paths for entry in _scan(source, path, known, track)]
        _refuse_repeats("files of one image", (entry.image_id for entry in found))
        entries += sorted(found, key=lambda entry: entry.image_id)
    reference = next(iter(places))
    missing = subjects.keys() - {entry.image_id for entry in entries if entry.source == reference}
    if missing:
        raise Mismatch(
            "no_file", f"{len(missing)} images of the metadata have no file in {reference}: {_some(missing)}."
        )
    _refuse_straddling("identical files", ((entry.sha256, entry.split) for entry in entries))
    for source in places:
        if source in datasets.FURTHER:
            _refuse_likenesses(places[reference], places[source])
    return Manifest(tuple(entries), {source: [str(path) for path in paths] for source, paths in places.items()})


def read_metadata(path: Path) -> list[Subject]:
    """Read HAM10000's metadata. Without a ``split`` column, draw a split by lesion with a fixed seed.

    Raises Mismatch for repeated images, unknown diagnoses or splits, and lesions in two splits.
    """
    subjects = _read_rows(path)
    if not any(subject.split for subject in subjects):
        subjects = split_by_lesion(subjects)
    strange = {subject.split for subject in subjects} - set(SPLITS)
    if strange:
        raise Mismatch("unknown_split", f"Unknown splits {_some(strange)}; known are {', '.join(SPLITS)}.")
    _refuse_straddling("images of one lesion", ((subject.lesion_id, subject.split) for subject in subjects))
    return subjects


def read_further(paths: Iterable[Path], subjects: Iterable[Subject]) -> dict[str, Subject]:
    """Read the metadata of a further dataset from the folder of its archives; every image is for pretraining.

    Raises Mismatch for an unknown diagnosis, and for an image or a lesion that is among ``subjects``.
    """
    files = sorted({(path if path.is_dir() else path.parent) / "metadata.csv" for path in paths})
    found = [replace(subject, split=PRETRAIN) for path in files for subject in _read_rows(path)]
    for what in ("image_id", "lesion_id"):
        shared = {getattr(one, what) for one in found} & {getattr(one, what) for one in subjects} - {""}
        if shared:
            raise Mismatch("overlap", f"These {what}s of the further dataset are also in HAM10000: {_some(shared)}.")
    return {subject.image_id: subject for subject in found}


def split_by_lesion(subjects: list[Subject], *, seed: int = 1) -> list[Subject]:
    """Draw a split by lesion, stratified by diagnosis. It depends on ``seed`` but not on the order of the rows."""
    chooser = random.Random(seed)
    chosen: dict[str, str] = {}
    for code in taxonomy.CODES:
        lesions = sorted({subject.lesion_id for subject in subjects if subject.diagnosis == code} - chosen.keys())
        chooser.shuffle(lesions)
        tests = round(len(lesions) * SPLIT_SHARES["test"])
        vals = round(len(lesions) * SPLIT_SHARES["val"])
        for position, lesion in enumerate(lesions):
            chosen[lesion] = "test" if position < tests else "val" if position < tests + vals else "train"
    return [replace(subject, split=chosen[subject.lesion_id]) for subject in subjects]


def split_by_image(manifest: Manifest, *, seed: int = 1) -> Manifest:
    """Return ``manifest`` with a random split by image, as published, for comparison only.

    2,000 of 10,015 images are test, and a tenth of the others is val. Lesions occur in several splits, so the figures
    on test are too good.
    """
    names = sorted({entry.image_id for entry in manifest.entries})
    random.Random(seed).shuffle(names)
    tests = round(len(names) * 2000 / 10015)
    vals = round((len(names) - tests) / 10)
    chosen = {name: "test" if n < tests else "val" if n < tests + vals else "train" for n, name in enumerate(names)}
    return replace(manifest, entries=tuple(replace(e, split=chosen[e.image_id]) for e in manifest.entries))


def write(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest`` to ``folder``: one file of entries and one of paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(_text(manifest.entries), encoding="utf-8")
    (folder / PLACES).write_text(json.dumps(manifest.places, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """Read the manifest in ``folder``. Raises Mismatch when there is none."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        places = json.loads((folder / PLACES).read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise Mismatch(
            "no_manifest", f"{err.filename} does not exist; run `python -m training prepare` first."
        ) from err
    return Manifest(tuple(Entry(**row) for row in csv.DictReader(io.StringIO(text))), places)


def read_files(paths: Iterable[str | Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every image file in ZIP archives and folders, sorted by name."""
    for path in map(Path, paths):
        if path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES):
                yield file.relative_to(path).as_posix(), file.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(name for name in archive.namelist() if name.lower().endswith(_SUFFIXES)):
                    yield name, archive.read(name)


def _scan(
    source: str, path: Path, subjects: dict[str, Subject], track: Callable[[Iterable[str]], Iterable[str]]
) -> Iterator[Entry]:
    files = read_files([path])
    contents: dict[str, bytes] = {}

    def names() -> Iterator[str]:
        for name, content in files:
            contents[name] = content
            yield name

    for name in track(names()):
        content = contents.pop(name)
        subject = subjects.get(PurePosixPath(name).stem)
        if subject is None:
            raise Mismatch("no_metadata", f"{name} in {path.name} is not in the metadata.")
        try:
            formats.check(content[: formats.HEAD_BYTES], max_pixels=_MAX_PIXELS, max_side=_MAX_PIXELS)
        except errors.Rejected as err:
            raise Mismatch(err.code, f"{name} in {path.name}: {err.detail}") from err
        yield Entry(**asdict(subject), source=source, member=name, sha256=hashlib.sha256(content).hexdigest())


def _refuse_likenesses(places: list[Path], further: list[Path]) -> None:
    """Raise Mismatch when a picture of ``further`` is a near-duplicate of one of ``places``."""
    known, new = (duplicates.compute_fingerprints(read_files(paths)) for paths in (places, further))
    alike = duplicates.find(known, new)
    if alike:
        pairs = _some(f"{copy} is {original}" for original, copy in alike)
        raise Mismatch("overlap", f"The further dataset has near-duplicates of HAM10000: {pairs}.")


def _read_rows(path: Path) -> list[Subject]:
    """Read the rows of a metadata file. Raises Mismatch for repeated images and unknown diagnoses."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        subjects = [_subject(row) for row in csv.DictReader(file)]
    _refuse_repeats("rows of one image", (subject.image_id for subject in subjects))
    strange = {subject.diagnosis for subject in subjects} - set(taxonomy.CODES)
    if strange:
        raise Mismatch(
            "unknown_diagnosis", f"Unknown diagnoses {_some(strange)}; known are {', '.join(taxonomy.CODES)}."
        )
    return subjects


def _subject(row: dict[str, str]) -> Subject:
    try:
        return Subject(
            image_id=row["image_id"],
            lesion_id=row["lesion_id"],
            diagnosis=row["dx"],
            confirmation=row.get("dx_type") or "",
            age=row["age"],
            sex=row["sex"],
            site=row["localization"],
            split=row.get("split") or "",
        )
    except KeyError as err:
        raise Mismatch("no_column", f"The metadata has no column {err}.") from err


def _text(entries: Iterable[Entry]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return out.getvalue()


def _refuse_repeats(what: str, keys: Iterable[str]) -> None:
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise Mismatch("repeated", f"Several {what}: {_some(repeated)}.")


def _refuse_straddling(what: str, sides: Iterable[tuple[str, str]]) -> None:
    """Raise Mismatch when one key is in two splits."""
    splits: dict[str, set[str]] = {}
    for key, split in sides:
        splits.setdefault(key, set()).add(split)
    torn = [key for key, found in splits.items() if len(found) > 1]
    if torn:
        raise Mismatch("leak", f"The {what} are in two splits: {_some(torn)}.")


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
