"""A bundle: a trained model on disk with its card. Training writes it; a worker loads it; the web shows its card.

A bundle is a folder under ``bundles/``: ``model.keras``, ``model.onnx``, ``golden.npz`` and ``card.json``.
``bundles/current`` is a text file with the name of the folder whose bundle new batches use.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dermq import errors, recipes, scoring, taxonomy

log = logging.getLogger(__name__)

CARD = "card.json"
KERAS_MODEL = "model.keras"
ONNX_MODEL = "model.onnx"
GOLDEN = "golden.npz"
FILES = (KERAS_MODEL, ONNX_MODEL, GOLDEN)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(_Part):
    """The name and version of the preprocessing, from bytes to pixels, that ``dermq.imaging.prepare`` does."""

    name: str
    version: int


class OutOfDistribution(_Part):
    """The out-of-distribution score: an image above the threshold is unlike the training data."""

    method: str
    threshold: float
    auroc: float | None = None
    measured_on: str


class Decision(_Part):
    """How the logits were shifted from the class shares that training drew towards the true frequencies (ADR 9)."""

    tau: float
    """Size of the shift: 0 is none, 1 leads to the frequencies of the training data."""
    shift: dict[str, float]
    """What was added to the logit of each class, by diagnosis code."""
    chosen: str


Metrics = scoring.Scores
"""The scores on one split."""


class TrainingData(_Part):
    """The dataset on which the model was trained."""

    name: str
    sha256: str
    split: str
    images: dict[str, int]
    citation: str
    licence: str


class Card(_Part):
    """The description of a bundle: what a worker must check, and what people want to know."""

    name: str
    version: str
    description: str
    classes: tuple[str, ...]
    architecture: str
    input_size: int
    recipe: Recipe
    temperature: float
    """Calibration temperature. The exported model applies it, so nothing else may apply it again."""
    decision: Decision | None = None
    """The exported model applies it as well, before the temperature. None in bundles older than this field."""
    out_of_distribution: OutOfDistribution
    metrics: dict[str, Metrics]
    start_weights: str
    config: dict[str, Any]
    augmentation: str
    training_data: TrainingData
    hardware: str
    packages: dict[str, str]
    wall_seconds: float
    git_commit: str
    created_at: datetime
    licence: str
    citation: str
    limits: str
    files: dict[str, str]
    """SHA-256 of each file of the bundle, except this card."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. ``sha256`` is that of its card; the card holds the hashes of all other files."""

    path: Path
    card: Card
    sha256: str

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def version(self) -> str:
        return self.card.version


def find_current(bundles_dir: Path) -> Bundle:
    """Return the bundle that new batches use. Raises Unfit when there is none."""
    pointer = bundles_dir / "current"
    if not pointer.is_file():
        raise errors.Unfit("no_bundle", f"{pointer} does not exist; it must name the bundle that new batches use.")
    return read(bundles_dir / pointer.read_text().strip())


def list_installed(bundles_dir: Path) -> list[Bundle]:
    """Return every bundle on disk by folder name; one whose card cannot be read (yet) is logged and left out."""
    found = []
    for card in sorted(bundles_dir.glob(f"*/{CARD}")):
        try:
            found.append(read(card.parent))
        except errors.Unfit as err:
            log.warning("bundle %s is left out: %s", card.parent, err)
    return found


def read(path: Path) -> Bundle:
    """Read a bundle's card without loading its model.

    Raises Unfit when the card is missing, is malformed, or names other classes or a recipe that is not known here.
    """
    try:
        raw = (path / CARD).read_bytes()
        card = Card.model_validate_json(raw)
    except OSError as err:
        raise errors.Unfit("no_bundle", f"No card in {path}: {err.strerror}.") from err
    except ValidationError as err:
        raise errors.Unfit("bad_card", f"The card in {path} is malformed: {err}") from err
    if card.classes != taxonomy.CODES:
        raise errors.Unfit("bad_card", f"The card's classes are {card.classes}; they must be {taxonomy.CODES}.")
    if card.recipe.name != recipes.RECIPE or card.recipe.version not in recipes.VERSIONS:
        known = f"{recipes.RECIPE}, version {' or '.join(map(str, recipes.VERSIONS))}"
        raise errors.Unfit("unknown_recipe", f"The card's recipe is {card.recipe}; it must be {known}.")
    return Bundle(path, card, hashlib.sha256(raw).hexdigest())


def verify_files(bundle: Bundle, names: tuple[str, ...] = FILES) -> None:
    """Compare the SHA-256 of files with the card. Raises Unfit at the first file that is missing or different."""
    for name in names:
        expected = bundle.card.files.get(name)
        path = bundle.path / name
        if expected is None or not path.is_file():
            raise errors.Unfit("bad_bundle", f"{path} is missing, or its card does not list it.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise errors.Unfit("bad_bundle", f"{path} has SHA-256 {found}; its card says {expected}.")


def write_card(path: Path, card: Card) -> Bundle:
    """Write ``card`` into the bundle folder ``path`` and read it back."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    (path / CARD).write_text(text, encoding="utf-8")
    return read(path)
