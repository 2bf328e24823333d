"""Small valid and damaged images and archives, of every kind that a lab may send."""

import io
import struct
import zipfile

import numpy as np
from PIL import Image


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth random RGB picture, so that JPEG keeps it small."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The bytes of ``image`` as a file."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def jpeg(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    return encoded(picture(width, height, seed))


def truncated_jpeg() -> bytes:
    """A JPEG with a complete header and half of its pixels."""
    whole = jpeg(width=320, height=240)
    return whole[: len(whole) // 2]


def animated_gif() -> bytes:
    frames = [picture(seed=seed) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def svg() -> bytes:
    return b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def huge_png_header(width: int = 10_000, height: int = 10_000) -> bytes:
    """A valid PNG of ``width`` x ``height`` in a few kilobytes: black, with one bit per pixel."""
    return encoded(Image.new("1", (width, height)), "PNG")


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of ``entries``, in their order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return out.getvalue()


def textured(width: int = 300, height: int = 225, seed: int = 0) -> Image.Image:
    """A picture with fine details, as a photograph has them, so that its file has tens of kilobytes."""
    noise = np.random.default_rng(seed).normal(0, 24, (height, width, 3))
    smooth = np.asarray(picture(width, height, seed), np.float64)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def with_height(data: bytes, height: int) -> bytes:
    """A JPEG whose frame header announces another number of rows."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := data.find(marker)) != -1:
            return data[: at + 5] + struct.pack(">H", height) + data[at + 7 :]
    raise ValueError("no frame header")
