"""A tiny made-up dataset and a tiny network, for training runs of seconds."""

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dermq import taxonomy
from training import manifest

ROOT = Path(__file__).parents[2]
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (200, 40, 200), (40, 200, 200), (120, 120, 120))
SPLITS = ("train", "train", "train", "train", "val", "test")


def prepare(folder: Path, *, further: bool = False) -> manifest.Manifest:
    """Six images of each class, each class of one colour, two of them a lesion; written and matched in ``folder``.

    With ``further``, one more of each class stands for ISIC 2019's.
    """
    chance = np.random.default_rng(0)
    rows = []
    with zipfile.ZipFile(folder / "tiny.zip", "w") as archive:
        for number, code in enumerate(taxonomy.CODES):
            for place, split in enumerate(SPLITS):
                name = f"{code}-{place}"
                noise = chance.integers(-30, 30, (30, 40, 3))
                image = np.clip(np.array(COLOURS[number]) + noise, 0, 255).astype(np.uint8)
                stored = io.BytesIO()
                Image.fromarray(image).save(stored, "PNG")
                archive.writestr(f"{name}.png", stored.getvalue())
                lesion = f"{code}-{min(place, 4) // 2 if split == 'train' else split}"
                rows.append((name, lesion, code, "histo", "40.0", "female", "back", split))
    with (folder / "metadata.csv").open("w", newline="") as file:
        columns = ("image_id", "lesion_id", "dx", "dx_type", "age", "sex", "localization", "split")
        csv.writer(file).writerows([columns, *rows])
    places = {"tiny": [folder / "tiny.zip"]}
    if further:
        places["isic2019"] = [prepare_further(folder / "isic2019")]
    made = manifest.prepare(folder / "metadata.csv", places)
    manifest.write(made, folder / "data")
    return made


def prepare_further(folder: Path, name: str = "new-{code}") -> Path:
    """A folder of one image of each class with its metadata, in ISIC 2019's columns."""
    folder.mkdir()
    chance = np.random.default_rng(1)
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image_id", "lesion_id", "dx", "isic2019", "source", "age", "sex", "localization", "in_84"))
        for number, code in enumerate(taxonomy.CODES):
            image_id = name.format(code=code)
            rows.writerow((image_id, "", code, code.upper(), "bcn", "40", "male", "head/neck", "1"))
            noise = chance.integers(-30, 30, (21, 21, 3))
            image = np.clip(np.array(COLOURS[number]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{image_id}.png")
    return folder


def network(size: int, start: str, *, dropout: float = 0.0, backbone: str = "") -> Any:
    """A few layers of the kinds that the real network has, dropout included; ``start``, ``backbone`` are ignored."""
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    scaled = keras.layers.Normalization(axis=-1)(keras.layers.Rescaling(1 / 255)(pixels))
    convolved = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(scaled)
    active = keras.layers.Activation("swish")(keras.layers.BatchNormalization()(convolved))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(active)
    dropped = keras.layers.Dropout(dropout)(pooled)
    logits = keras.layers.Dense(len(taxonomy.CODES), name="logits")(dropped)
    return keras.Model(pixels, logits)
