"""Colours: from what a file stores to sRGB, with its ICC profile (ICC.1) or without.

A profile that is broken, or made for another colour space than the pixels have, is ignored, as viewers do.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}
_CLASSES = frozenset({"scnr", "mntr", "prtr", "spac"})
"""Profiles of devices and colour spaces; the others, such as links, do not describe an image's pixels."""
_MOST_ROUNDING = 2
"""A profile that changes no value by more, of 255, is that of sRGB."""
_SRGB_GAMMA = 1 / 2.2


def convert_to_srgb(image: Image.Image, profile: bytes | None, gamma: float | None) -> Image.Image:
    """Return ``image`` in sRGB, by its profile or its gamma; pixels that are sRGB stay as they are."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    plain = image if alpha is None else image.convert(image.mode[:-1])
    seen = _apply_profile(plain, profile) if profile else None
    if seen is None and gamma is not None and plain.mode in ("L", "RGB"):
        seen = _apply_gamma(plain, gamma)
    if seen is None:
        return image
    if alpha is not None:
        seen = seen.convert("RGB")
        seen.putalpha(alpha)
    return seen


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as RGB. Transparent pixels lie on white; CMYK without a profile is mixed without one."""
    if image.mode == "RGB":
        return image
    if image.mode in ("LA", "RGBA"):
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    if image.mode == "LAB":
        transform = _build_lab()
        return ImageCms.applyTransform(image, transform) or image
    return image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return ``image`` in sRGB, or None when the profile changes nothing or does not fit."""
    transform = _build_transform(profile, image.mode)
    if transform is None:
        return None
    return ImageCms.applyTransform(image, transform)


@functools.lru_cache(maxsize=8)
def _build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns pixels of ``mode`` into sRGB; None when the profile is broken, does not fit, or is sRGB's."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _SPACES.get(mode) or opened.profile.device_class not in _CLASSES:
            return None
        transform = ImageCms.buildTransform(opened, _make_srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        return transform if _changes(transform, mode) else None
    except MemoryError:
        raise
    except Exception:  # ImageCms raises several errors for a broken profile
        return None


def _changes(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform changes colours visibly, on a grid of all colours."""
    if mode not in ("L", "RGB"):
        return True
    line = np.linspace(0, 255, 18).astype(np.uint8)
    channels = np.meshgrid(*[line] * len(mode))
    grid = np.stack(channels, axis=-1).reshape(-1, 1, len(mode))
    before = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    after = ImageCms.applyTransform(before, transform)
    apart = np.abs(np.asarray(after, np.int16) - np.asarray(before.convert("RGB"), np.int16))
    return bool(apart.max() > _MOST_ROUNDING)


def _apply_gamma(image: Image.Image, gamma: float) -> Image.Image | None:
    """Return ``image`` with the tone curve of sRGB, or None when it has it already."""
    values = np.linspace(0, 1, 256)
    light = values ** (1 / gamma)
    seen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    if abs(gamma - _SRGB_GAMMA) < 0.02:
        return None
    return image.point([round(255 * value) for value in seen] * len(image.getbands()))


@functools.cache
def _make_srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def _build_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), _make_srgb(), "LAB", "RGB", ImageCms.Intent.PERCEPTUAL
    )
