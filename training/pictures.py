"""Pictures without lesions: the golden inputs, and pictures that the out-of-distribution score must recognise.

All are generated or come with the packages scikit-image and scikit-learn. The golden ones are in the public domain or
CC0; the docstring of each picture's function in ``skimage.data`` states its terms.
"""

from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermq import imaging, recipes

GOLDEN_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "horse.png", "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png", "page.png"),
    *("rocket.jpg", "text.png"),
)
"""Photographs, textures, drawings and pages of scikit-image, without its medical pictures."""
SKLEARN_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
CROPS = 8
"""The number of random crops of each photograph in ``draw_foreign``."""
NOISES = 20
"""The number of pictures of each kind of noise in ``draw_foreign``."""

Pixels = NDArray[np.uint8]


def draw_golden(size: int, *, seed: int = 1, recipe_version: int = recipes.RECIPE_VERSION) -> Pixels:
    """Return eight pictures ``(8, size, size, 3) uint8``: fine and coarse noise, two gradients, four photographs.

    One of the photographs has a colour profile, so its pixels depend on the version of the recipe.
    """
    chance = np.random.default_rng(seed)
    generated = [_draw_noise(chance, size, 1), _draw_noise(chance, size, 24), _draw_ramp(size), _draw_disc(size)]
    photographs = [
        imaging.squash(_draw_photograph("skimage.data", name, recipe_version), size) for name in GOLDEN_PHOTOGRAPHS
    ]
    return np.stack(generated + photographs)


def draw_foreign(size: int, *, seed: int = 2) -> dict[str, Pixels]:
    """Return pictures without lesions, ``(n, size, size, 3)``: ``photographs``, whole and cropped, and ``noise``."""
    chance = np.random.default_rng(seed)
    whole = [_draw_photograph("skimage.data", name) for name in PHOTOGRAPHS]
    whole += [_draw_photograph("sklearn.datasets.images", name) for name in SKLEARN_PHOTOGRAPHS]
    crops = [_crop(chance, image) for image in whole for _ in range(CROPS)]
    noise = [_draw_noise(chance, size, grain) for grain in (1, 4, 24) for _ in range(NOISES)]
    return {
        "photographs": np.stack([imaging.squash(image, size) for image in whole + crops]),
        "noise": np.stack(noise),
    }


def _draw_photograph(package: str, name: str, recipe_version: int = recipes.RECIPE_VERSION) -> Image.Image:
    data = resources.files(package).joinpath(name).read_bytes()
    return imaging.read(data, max_pixels=50_000_000, recipe_version=recipe_version).image


def _crop(chance: np.random.Generator, image: Image.Image) -> Image.Image:
    width, height = (int(side * chance.uniform(0.3, 0.8)) for side in image.size)
    left, top = chance.integers(0, image.width - width), chance.integers(0, image.height - height)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _draw_noise(chance: np.random.Generator, size: int, grain: int) -> Pixels:
    """Return uniform noise in squares of ``grain`` pixels."""
    side = -(-size // grain)
    cells = chance.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cells.repeat(grain, axis=0).repeat(grain, axis=1)[:size, :size]


def _draw_ramp(size: int) -> Pixels:
    """Return a gradient: red grows to the right, green grows downwards, blue is constant."""
    line = np.linspace(0, 255, size)
    planes = [np.tile(line, (size, 1)), np.tile(line[:, None], (1, size)), np.full((size, size), 128.0)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _draw_disc(size: int) -> Pixels:
    """Return a dark brown disc that fades into a skin-coloured background."""
    line = np.linspace(-1, 1, size)
    distance = np.clip(np.hypot(line[None, :], line[:, None]), 0, 1)[..., None]
    blend = np.array([90, 50, 40]) * (1 - distance) + np.array([225, 180, 165]) * distance
    return np.asarray(blend, np.uint8)
