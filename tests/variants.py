"""One picture in the ways in which files store pixels, each to be read as the same picture."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dermq.decoding import exif
from tests import samples

SRGB = ImageCms.createProfile("sRGB")
TO_LAB = ImageCms.buildTransform(SRGB, ImageCms.createProfile("LAB"), "RGB", "LAB")


def lossless(picture: Image.Image) -> dict[str, bytes]:
    """Files of ``picture`` that hold its pixels exactly, or as exactly as their coding can."""
    pixels = np.asarray(picture)
    wide = pixels.astype(np.uint16) * 257
    opaque = np.full((*pixels.shape[:2], 1), 65535, np.uint16)
    inks = np.asarray(picture.convert("CMYK")).astype(np.uint16) * 257
    return {
        **{f"orientation {number}": _turned(picture, number) for number in range(1, 9)},
        "PNG": samples.encoded(picture, "PNG"),
        "PNG of 16 bits": _png(wide),
        "PNG of 12 bits in 16": with_chunk(_png(wide >> 4), b"sBIT", b"\x0c" * 3),
        "PNG of 12 bits in 16, scaled": with_chunk(_png(wide), b"sBIT", b"\x0c" * 3),
        "PNG with alpha": samples.encoded(_opaque(picture), "PNG"),
        "PNG of 16 bits with alpha": _png(np.dstack([wide, opaque])),
        "PNG, interlaced": _png(pixels),
        "BMP": samples.encoded(picture, "BMP"),
        "BMP with alpha": samples.encoded(_opaque(picture), "BMP"),
        "WebP": samples.encoded(picture, "WEBP", lossless=True),
        "TIFF": tiff(pixels),
        "TIFF, LZW with predictor": tiff(pixels, compression="lzw", predictor=True),
        "TIFF, deflated tiles": tiff(pixels, compression="zlib", tile=(32, 32)),
        "TIFF, zstd": tiff(pixels, compression="zstd"),
        "TIFF, planar": tiff(np.moveaxis(pixels, -1, 0), planarconfig="separate"),
        "TIFF, planar strips": tiff(np.moveaxis(pixels, -1, 0), planarconfig="separate", rowsperstrip=7),
        "TIFF, planar of 16 bits": tiff(np.moveaxis(wide, -1, 0), planarconfig="separate"),
        "TIFF, planar of 16 bits, LZW": tiff(np.moveaxis(wide, -1, 0), planarconfig="separate", compression="lzw"),
        "TIFF of 16 bits": tiff(wide),
        "TIFF of 16 bits, big-endian": tiff(wide, byteorder=">"),
        "TIFF of 16 bits, 12 declared": tiff(wide >> 4, extratags=[(281, "H", 3, (4095,) * 3, False)]),
        "TIFF of 32 bits": tiff(pixels.astype(np.uint32) * 0x01010101),
        "TIFF of floats": tiff((pixels / 255).astype(np.float32)),
        "TIFF of half floats": tiff((pixels / 255).astype(np.float16)),
        "TIFF of floats with a range": tiff(pixels.astype(np.float32), extratags=[
            (340, "f", 1, 0.0, False), (341, "f", 1, 255.0, False)]),
        "TIFF with alpha": tiff(np.dstack([pixels, opaque.astype(np.uint8)]), extrasamples=["unassalpha"]),
        "TIFF with a sample of no meaning": tiff(np.dstack([pixels, pixels[..., 0]]), extrasamples=["unspecified"]),
        "TIFF with a thumbnail": _with_thumbnail(pixels),
        "TIFF with a thumbnail before it": _with_thumbnail(pixels, first=True),
        "TIFF with overviews": _with_overviews(pixels),
        "BigTIFF": tiff(pixels, bigtiff=True),
        "TIFF with its version swapped": b"II\0*" + tiff(pixels)[4:],
        "TIFF of CMYK": samples.encoded(picture.convert("CMYK"), "TIFF"),
        "TIFF of CMYK, 16 bits": tiff(inks, photometric="separated"),
        "TIFF of YCbCr": samples.encoded(picture.convert("YCbCr"), "TIFF"),
    }  # fmt: skip


def grey(picture: Image.Image) -> dict[str, bytes]:
    """Files of a grey picture that hold its pixels exactly."""
    pixels = np.asarray(picture)
    wide = pixels.astype(np.uint16) * 257
    greys = np.arange(256, dtype=np.uint16)[None].repeat(3, 0) * 257
    return {
        "PNG": samples.encoded(picture, "PNG"),
        "PNG of 16 bits": _png(wide),
        "PNG with alpha": samples.encoded(_opaque(picture), "PNG"),
        "palette": samples.encoded(picture.convert("P"), "PNG"),
        "TIFF": tiff(pixels),
        "TIFF, white is zero": tiff(255 - pixels, photometric="miniswhite"),
        "TIFF, white is zero, 16 bits": tiff(65535 - wide, photometric="miniswhite"),
        "TIFF of 12 bits in 16": tiff(wide >> 4, extratags=[(281, "H", 1, 4095, False)]),
        "TIFF of 12 bits in 16, with its greatest value": tiff(wide >> 4, extratags=[
            (281, "H", 1, int(wide.max() >> 4), False)]),
        "TIFF of 12 bits, packed": tiff(wide >> 4, bitspersample=12),
        "TIFF of 32 bits": tiff(pixels.astype(np.uint32) * 0x01010101),
        "TIFF of floats": tiff((pixels / 255).astype(np.float32)),
        "palette TIFF": tiff(pixels, photometric="palette", colormap=greys),
        "JPEG": samples.encoded(picture, quality=100),
        "WebP": samples.encoded(picture.convert("RGB"), "WEBP", lossless=True),
    }  # fmt: skip


def lossy(picture: Image.Image) -> dict[str, bytes]:
    """Files of ``picture`` whose coding changes pixels a little."""
    pixels = np.ascontiguousarray(picture)
    cmyk = np.asarray(picture.convert("CMYK"))
    lab = ImageCms.applyTransform(picture, TO_LAB)
    assert lab is not None
    return {
        "TIFF of L*a*b*": samples.encoded(lab, "TIFF"),
        "JPEG": samples.encoded(picture, quality=95),
        "progressive": samples.encoded(picture, quality=95, progressive=True),
        "JPEG of 12 bits": _jpeg(pixels.astype(np.uint16) << 4, level=95, bitspersample=12),
        "lossless JPEG": _jpeg(pixels, lossless=True),
        "JPEG of RGB": _jpeg(pixels, level=97, colorspace="RGB", outcolorspace="RGB"),
        "CMYK": samples.encoded(picture.convert("CMYK"), quality=97),
        "CMYK without Adobe's marker": without_adobe_marker(
            _jpeg(np.ascontiguousarray(cmyk), level=97, colorspace="CMYK", outcolorspace="CMYK")
        ),
        "CMYK with reduced inks": samples.encoded(picture.convert("CMYK"), quality=97, subsampling=2),
        "YCCK": _jpeg(np.ascontiguousarray(255 - cmyk), level=97, colorspace="CMYK", outcolorspace="YCCK"),
        "WebP": samples.encoded(picture, "WEBP", quality=97),
        "TIFF of JPEG": tiff(pixels, compression="jpeg", compressionargs={"level": 97}),
        "TIFF of JPEG by libtiff": samples.encoded(picture, "TIFF", compression="jpeg", quality=97),
        "AVIF": samples.encoded(picture, "AVIF", quality=95, subsampling="4:4:4"),
        **{f"AVIF, orientation {number}": _turned(picture, number, "AVIF", quality=95) for number in (3, 6, 7, 8)},
        "JPEG 2000": samples.encoded(picture, "JPEG2000"),
        "JPEG 2000 codestream": samples.encoded(picture, "JPEG2000", no_jp2=True),
        "JPEG 2000 of 12 bits": bytes(
            imagecodecs.jpeg2k_encode(pixels.astype(np.uint16) << 4, level=0, bitspersample=12)
        ),
        "JPEG 2000 of 16 bits": bytes(imagecodecs.jpeg2k_encode(pixels.astype(np.uint16) * 257, level=0)),
        "MPO": samples.encoded(picture, "MPO", quality=95, save_all=True, append_images=[picture.reduce(2)]),
        **{f"{name}, ICC": data for name, data in profiled(picture).items()},
    }


def profiled(picture: Image.Image) -> dict[str, bytes]:
    """Files of ``picture`` whose pixels are in another RGB space than sRGB, with its profile."""
    found = {}
    for name in ("linear", "wide"):
        profile = rgb_profile(name)
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        stored = ImageCms.profileToProfile(picture, SRGB, opened)
        assert stored is not None
        found[f"PNG of {name} RGB"] = samples.encoded(stored, "PNG", icc_profile=profile)
        found[f"JPEG of {name} RGB"] = samples.encoded(stored, "JPEG", quality=97, icc_profile=profile)
        found[f"TIFF of {name} RGB"] = samples.encoded(stored, "TIFF", icc_profile=profile)
        found[f"WebP of {name} RGB"] = samples.encoded(stored, "WEBP", lossless=True, icc_profile=profile)
    return found


def rgb_profile(kind: str) -> bytes:
    """A matrix profile (ICC.1) of sRGB's primaries with gamma 1.8, or of ProPhoto's with gamma 1.8."""
    primaries = {
        "linear": ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)),
        "wide": ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)),
    }[kind]
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(1.8 * 256)) + bytes(2)
    xyz = [b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in one) for one in ((0.9642, 1.0, 0.8249), *primaries)]
    text = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78 + 12)
    tags = [(b"desc", text), (b"wtpt", xyz[0]), *zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz[1:], strict=True)]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")] + [(b"cprt", b"text" + bytes(4) + b"none\0\0\0\0")]
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI", size, b"none", 0x02200000) + b"mntrRGB XYZ " + date + b"acsp" + bytes(28)
    head += _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    return head.ljust(128, b"\0") + table + body


def without_adobe_marker(jpeg: bytes) -> bytes:
    """A JPEG without the segment by which decoders know that CMYK is inverted."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    """A TIFF as tifffile writes it."""
    if pixels.ndim == 3:
        options = {"photometric": "rgb", **options}
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, metadata=None, software=False, **options)
    return out.getvalue()


def _png(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(pixels))


def _jpeg(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), **options))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _turned(picture: Image.Image, orientation: int, format: str = "PNG", **options: Any) -> bytes:
    """A file whose pixels are turned so that its EXIF orientation makes them upright."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    block = Image.Exif()
    block[0x0112] = orientation
    return samples.encoded(exif.turn_upright(picture, inverse), format, exif=block, **options)


def _opaque(picture: Image.Image) -> Image.Image:
    found = picture.copy()
    found.putalpha(255)
    return found


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def _with_thumbnail(pixels: NDArray[np.uint8], *, first: bool = False) -> bytes:
    out = io.BytesIO()
    small = np.ascontiguousarray(pixels[::4, ::4])
    pages: list[Callable[[tifffile.TiffWriter], object]] = [
        lambda file: file.write(pixels, photometric="rgb", metadata=None),
        lambda file: file.write(small, photometric="rgb", subfiletype=1, metadata=None),
    ]
    with tifffile.TiffWriter(out) as file:
        for write in reversed(pages) if first else pages:
            write(file)
    return out.getvalue()


def _with_overviews(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(pixels, photometric="rgb", subifds=2, metadata=None)
        for step in (2, 4):
            file.write(np.ascontiguousarray(pixels[::step, ::step]), photometric="rgb", subfiletype=1, metadata=None)
    return out.getvalue()
