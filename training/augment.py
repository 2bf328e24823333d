"""Augmentation: random changes of a training image, with the same distribution for every class and source.

Sharpness, resolution and JPEG quality are changed on purpose. In HAM10000's archives they reveal the source, and the
source reveals the class: the sharp archives show no vascular lesion. A network must not learn from them.
All changes depend only on the random generator, so the same seed gives the same image.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]

PUBLISHED_DESCRIPTION = "Shift up to 20 %, shear up to 0.2 degrees, flips; empty pixels filled from the nearest"
DESCRIPTION = (
    "Flips; rotation by any angle, zoom 0.87 to 1.35, stretch 0.9 to 1.11, shear up to 8 degrees, shift up to 8 % with "
    "mirrored edges; brightness, contrast and saturation up to 20 %, colour cast up to 8 %; lower resolution, blur or "
    "sharpening, and JPEG quality 40 to 95, each drawn alike for every class; a grey patch on a quarter of the images"
)
FRAMED_DESCRIPTION = f"{DESCRIPTION}; a quarter of the images as if their frame had been cropped to a square"
ASPECT = 4 / 3
"""The ratio of width to height of HAM10000's images, before they are squashed to a square."""


@dataclass(frozen=True)
class Bounds:
    """The limits of each change."""

    angle_degrees: float = 180.0
    zoom: tuple[float, float] = (0.87, 1.35)
    stretch: float = 1.11
    shear_degrees: float = 8.0
    shift: float = 0.08
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    cast: float = 0.08
    lowest_resolution: float = 0.5
    blur_pixels: tuple[float, float] = (0.3, 1.2)
    sharpen_percent: tuple[int, int] = (40, 150)
    jpeg_quality: tuple[int, int] = (40, 95)
    patch_area: tuple[float, float] = (0.02, 0.12)
    cut_square: float = 0.0
    """The share of images that look as if they had been cropped to a square, so that the lesion is not squashed."""


BOUNDS = Bounds()
FRAMED = Bounds(cut_square=0.25)
PUBLISHED_SHIFT = 0.2
PUBLISHED_SHEAR_DEGREES = 0.2


def augment(pixels: Pixels, chance: np.random.Generator, bounds: Bounds = BOUNDS) -> Pixels:
    """Return a random variant of ``pixels (s, s, 3)``, of the same shape."""
    image = Image.fromarray(pixels)
    if chance.random() < 0.85:
        image = warp(image, draw_matrix(chance, bounds))
    image = flip(image, chance)
    image = Image.fromarray(change_colour(np.asarray(image), chance, bounds))
    image = degrade(image, chance, bounds)
    return erase_patch(np.array(image), chance, bounds)


def augment_as_published(pixels: Pixels, chance: np.random.Generator) -> Pixels:
    """Return a variant by the published recipe: shift, shear and flips; empty pixels copy the nearest pixel."""
    shear = math.radians(chance.uniform(-1, 1) * PUBLISHED_SHEAR_DEGREES)
    linear = np.array([[1.0, -math.sin(shear)], [0.0, math.cos(shear)]])
    shift = chance.uniform(-PUBLISHED_SHIFT, PUBLISHED_SHIFT, 2)
    image = warp(Image.fromarray(pixels), np.column_stack([linear, shift]), margins="edge")
    return np.array(flip(image, chance))


def draw_matrix(chance: np.random.Generator, bounds: Bounds = BOUNDS) -> NDArray[np.float64]:
    """Return a random affine map ``(2, 3)`` from output to input, in fractions of the side, around the centre.

    Rotation and shear are applied in the frame's original proportions, so that a squashed lesion keeps its shape.
    """
    angle, shear = (
        math.radians(chance.uniform(-1, 1) * limit) for limit in (bounds.angle_degrees, bounds.shear_degrees)
    )
    zoom = math.exp(chance.uniform(*np.log(bounds.zoom)))
    stretch = math.exp(chance.uniform(-1, 1) * math.log(bounds.stretch) / 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    lean = np.array([[1.0, math.tan(shear)], [0.0, 1.0]])
    squash = np.diag([ASPECT, 1.0])
    linear = np.linalg.inv(squash) @ turn @ lean @ np.diag([stretch, 1 / stretch]) @ squash / zoom
    if bounds.cut_square and chance.random() < bounds.cut_square:
        linear = linear @ np.diag([1 / ASPECT, 1.0])
    shift = chance.uniform(-bounds.shift, bounds.shift, 2)
    return np.column_stack([linear, shift])


def warp(
    image: Image.Image, affine: NDArray[np.float64], *, margins: Literal["symmetric", "edge"] = "symmetric"
) -> Image.Image:
    """Apply the map of ``draw_matrix``. Pixels outside the image are mirrored (``symmetric``) or copy the ``edge``."""
    size = image.width
    margin = size * 3 // 4
    wide = Image.fromarray(np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), margins))
    linear, shift = affine[:, :2], affine[:, 2] * size
    centre = np.array([size / 2, size / 2])
    offset = centre + margin + shift - linear @ centre
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    return wide.transform(
        (size, size), Image.Transform.AFFINE, tuple(map(float, coefficients)), Image.Resampling.BICUBIC
    )


def flip(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Mirror the image horizontally and vertically, each with probability 0.5."""
    for way in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if chance.random() < 0.5:
            image = image.transpose(way)
    return image


def change_colour(pixels: Pixels, chance: np.random.Generator, bounds: Bounds = BOUNDS) -> Pixels:
    """Change brightness, contrast, saturation and the balance of the channels."""
    gain = 1 + chance.uniform(-bounds.brightness, bounds.brightness)
    contrast = 1 + chance.uniform(-bounds.contrast, bounds.contrast)
    saturation = 1 + chance.uniform(-bounds.saturation, bounds.saturation)
    cast = 1 + chance.uniform(-bounds.cast, bounds.cast, 3)
    grey = np.array([0.299, 0.587, 0.114])
    mixing = (saturation * np.eye(3) + (1 - saturation) * grey[:, None]) * gain * contrast * cast
    mean = pixels.mean(axis=(0, 1))
    offset = (mean @ mixing) * (1 / contrast - 1)
    changed = pixels.astype(np.float32) @ mixing.astype(np.float32) + offset.astype(np.float32)
    return np.asarray(np.clip(changed + 0.5, 0, 255), np.uint8)


def degrade(image: Image.Image, chance: np.random.Generator, bounds: Bounds = BOUNDS) -> Image.Image:
    """Hide the source of an image: resolution, blur or sharpening in 60 % of the images, then JPEG in half of them."""
    kind = chance.random()
    if kind < 0.2:
        side = round(image.width * chance.uniform(bounds.lowest_resolution, 1))
        image = image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)
    elif kind < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(*bounds.blur_pixels)))
    elif kind < 0.6:
        image = image.filter(ImageFilter.UnsharpMask(1, int(chance.integers(*bounds.sharpen_percent)), 0))
    if chance.random() < 0.5:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=int(chance.integers(*bounds.jpeg_quality, endpoint=True)))
        image = Image.open(stored).convert("RGB")
    return image


def erase_patch(pixels: Pixels, chance: np.random.Generator, bounds: Bounds = BOUNDS) -> Pixels:
    """Erase a random rectangle with the image's mean colour, in a quarter of the images.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """
    if chance.random() < 0.25:
        size = pixels.shape[0]
        area = chance.uniform(*bounds.patch_area)
        ratio = math.exp(chance.uniform(-0.7, 0.7))
        height, width = (max(1, round(size * math.sqrt(area * r))) for r in (ratio, 1 / ratio))
        top, left = chance.integers(0, size - height + 1), chance.integers(0, size - width + 1)
        pixels[top : top + height, left : left + width] = pixels.mean(axis=(0, 1)).astype(np.uint8)
    return pixels


def augment_framed(pixels: Pixels, chance: np.random.Generator) -> Pixels:
    """Return a variant as ``augment`` does, but show some images as if they had been cropped to a square."""
    return augment(pixels, chance, FRAMED)


KINDS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "rich": augment,
    "framed": augment_framed,
    "published": augment_as_published,
}
