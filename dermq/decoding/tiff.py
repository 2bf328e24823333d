"""TIFF 6.0 and BigTIFF, by tifffile: the one page of full resolution, its samples scaled by the depth that it declares.

A page that is marked as reduced, such as a thumbnail or an overview, or as a mask, is no image of its own.
"""

import io
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from dermq import formats
from dermq.decoding import exif, jpeg, pillow
from dermq.decoding.raster import (
    Limits,
    Raster,
    check_zeros,
    make_damaged,
    make_several_frames,
    make_unsupported_pixels,
    reduce_to_8_bits,
)
from dermq.errors import DermqError

# Its warnings repeat the content of tags, which may name a patient, and concern metadata. Lost pixels are errors.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

_SWAPPED = {b"II\0*": b"II*\0", b"MM*\0": b"MM\0*", b"II\0+": b"II+\0", b"MM+\0": b"MM\0+"}
_REDUCED, _MASK = 1, 4
_REDUCED_BY_OLD_TAG = 2
_SUBFILE_TYPE, _ORIENTATION, _XMP, _INK_SET, _PROFILE = 255, 274, 700, 332, 34675
_DNG_VERSION = 50706
_MOST_VALUES, _LEAST_OF_FLOAT, _MOST_OF_FLOAT = 281, 340, 341
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3}
_RAW = frozenset({32803, 34892})
"""Photometric interpretations of cameras' sensor values: CFA and LinearRaw."""
_FAX = frozenset({2, 3, 4})
_JPEG, _WEBP, _JPEG_2000 = frozenset({7, 99}), frozenset({50001}), frozenset({33003, 33004, 33005, 34712})
_OLD_JPEG = 6
"""TIFF 6.0's first way to hold JPEG, which programs understood differently."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED, _FLOAT = 1, 3
_INK_CMYK = 1
_DARK = 16
"""An image that fills less than a sixteenth of its values' range probably has fewer bits than it declares."""

Samples = NDArray[Any]


def read(data: bytes, limits: Limits) -> Raster:
    """Decode the page of full resolution. Raises Permanent when there are several, or when pixels are missing."""
    data = _SWAPPED.get(data[:4], data[:4]) + data[4:]
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = _find_full_page(file)
            size = page.imagewidth, page.imagelength
            formats.check_pixels(*size, limits.max_pixels)
            _check_kind(page)
            fax = int(page.compression) in _FAX
            image = _decode_fax(data) if fax else _decode_page(page, data)
            orientation, profile = _read_tag(page, _ORIENTATION), _read_tag(page, _PROFILE)
    except (DermqError, MemoryError):
        raise
    except Exception as err:  # tifffile raises any exception for a damaged file
        raise make_damaged(str(err).strip().rstrip(".") or "its header cannot be read") from err
    upright = orientation if isinstance(orientation, int) and not fax else exif.UPRIGHT
    return Raster(image, size, upright, profile if isinstance(profile, bytes) else None)


def _find_full_page(file: tifffile.TiffFile) -> Any:
    pages = _list_pages(file)
    if not pages:
        raise make_damaged("it holds no page")
    if any(_DNG_VERSION in page.tags for page in pages):
        raise make_unsupported_pixels("A camera's raw data (DNG)")
    full = [page for page in pages if not _is_reduced(page)]
    if not full:  # cameras put a thumbnail first, and the image below it
        below = [page.aspage() for one in pages for page in one.pages or ()]
        full = [page for page in below if not _is_reduced(page)]
        pages += below
    if len(full) > 1:
        raise make_several_frames(len(full))
    return full[0] if full else max(pages, key=lambda page: page.imagewidth * page.imagelength)


def _list_pages(file: tifffile.TiffFile) -> list[Any]:
    pages: list[Any] = []
    for page in file.pages:
        if any(page.offset == before.offset for before in pages):
            raise make_damaged("its list of pages leads back to itself")
        pages.append(page.aspage())
    return pages


def _is_reduced(page: Any) -> bool:
    return bool(page.subfiletype & (_REDUCED | _MASK)) or _read_tag(page, _SUBFILE_TYPE) == _REDUCED_BY_OLD_TAG


def _read_tag(page: Any, code: int) -> Any:
    """Return the value of a tag, or None. A tag that cannot be read counts as missing."""
    try:
        return page.tags[code].value
    except Exception:  # tifffile reads values late and raises any exception for a broken one
        return None


def _check_kind(page: Any) -> None:
    """Raise Permanent for pixels that cannot be shown correctly."""
    photometric = int(page.photometric)
    if photometric in _RAW:
        raise make_unsupported_pixels("A camera's raw data")
    if photometric not in _CHANNELS or page.imagedepth != 1:
        raise make_unsupported_pixels(f"A TIFF of the photometric interpretation {photometric}")
    if int(page.compression) == _OLD_JPEG:
        raise make_unsupported_pixels("A TIFF of JPEG in the way of 1992")
    if page.samplesperpixel < _CHANNELS[photometric]:
        raise make_unsupported_pixels(f"A TIFF with {page.samplesperpixel} samples a pixel of its kind")
    if photometric == _CMYK and _read_tag(page, _INK_SET) not in (None, _INK_CMYK):
        raise make_unsupported_pixels("A TIFF of other inks than CMYK")
    if page.dtype is None or not isinstance(page.bitspersample, int):
        raise make_unsupported_pixels("A TIFF with such bits a sample")
    if int(page.sampleformat) not in (_UNSIGNED, _FLOAT):
        raise make_unsupported_pixels(
            "A TIFF with signed samples" if int(page.sampleformat) == 2 else "A TIFF of such samples"
        )


def _decode_page(page: Any, data: bytes) -> Image.Image:
    """Return the pixels of a page as an image of 8 bits a channel."""
    _check_segments(page, data)
    photometric = int(page.photometric)
    samples = _interleave(page)
    channels = _CHANNELS[photometric]
    if photometric == _PALETTE:
        return _apply_palette(page, samples[..., 0])
    if photometric in (_CIELAB, _ICCLAB):
        return _read_lab(page, samples[..., :3])
    pixels = _scale(page, samples[..., :channels])
    if photometric == _WHITE_IS_ZERO:
        pixels = 255 - pixels
    if photometric == _YCBCR and int(page.compression) not in _JPEG:
        return _convert_ycbcr(page, pixels)
    if channels == 4:
        return Image.frombytes("CMYK", (page.imagewidth, page.imagelength), pixels.tobytes())
    return _join_alpha(page, samples, pixels)


def _check_segments(page: Any, data: bytes) -> None:
    """Raise Permanent unless all strips or tiles lie inside the file and hold what their coding demands."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) != len(counts) or len(offsets) < np.prod(page.chunked):
        raise make_damaged("a part of its pixels is missing")
    check = _choose_check(page)
    for offset, count in zip(offsets, counts, strict=True):
        if not 0 < count <= len(data) - offset or offset == 0:
            raise make_damaged("a part of its pixels is missing")
        if check is not None:
            check(data[offset : offset + count])


def _choose_check(page: Any) -> Callable[[bytes], None] | None:
    """Return the check of a strip whose coding tells no damage by itself."""
    compression = int(page.compression)
    if compression in _JPEG:
        tables = page.jpegtables
        rows, columns = page.chunks[:2] if int(page.planarconfig) == 1 else page.chunks[-2:]
        return lambda part: jpeg.check(part if tables is None else tables[:-2] + part[2:], most=(columns, rows))
    if compression in _JPEG_2000 or compression in _WEBP:
        return check_zeros
    return None


def _interleave(page: Any) -> Samples:
    """Return the samples of a page as ``(h, w, samples)``, also where each colour has a plane of its own."""
    samples: Samples = np.asarray(page.asarray(maxworkers=1))
    if int(page.planarconfig) == 2 and page.samplesperpixel > 1:
        samples = np.moveaxis(samples.reshape(page.samplesperpixel, page.imagelength, page.imagewidth), 0, -1)
    return samples.reshape(page.imagelength, page.imagewidth, -1)


def _scale(page: Any, samples: Samples) -> NDArray[np.uint8]:
    """Return samples as 8 bits, by the range that the file declares for them."""
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * 255
    if samples.dtype.kind == "f":
        return _scale_floats(page, samples)
    if samples.dtype.kind != "u":
        raise make_unsupported_pixels("A TIFF with signed samples")
    bits = page.bitspersample
    largest = int(samples.max(initial=0))
    declared = max(_list_numbers(_read_tag(page, _MOST_VALUES)), default=0)
    if bits > 8 and largest <= declared < 1 << bits and int(declared).bit_length() >= 8:
        bits = int(declared).bit_length()
    elif bits > 8 and 0 < largest < (1 << bits) // _DARK:
        raise make_unsupported_pixels(
            f"A TIFF of {bits} bits with no value above {largest}, which does not say how many bits hold values,"
        )
    return reduce_to_8_bits(samples, bits)


def _scale_floats(page: Any, samples: Samples) -> NDArray[np.uint8]:
    """Return floats as 8 bits: from 0 to 1, or between the least and the most value that the file declares."""
    least = min(_list_numbers(_read_tag(page, _LEAST_OF_FLOAT)), default=0.0)
    most = max(_list_numbers(_read_tag(page, _MOST_OF_FLOAT)), default=1.0)
    if not np.isfinite(samples).all() or most <= least or samples.min() < least or samples.max() > most:
        raise make_unsupported_pixels("A TIFF of floating-point numbers outside 0 to 1")
    scaled: NDArray[np.float32] = (samples.astype(np.float32) - least) * (255 / (most - least))
    return np.rint(scaled).astype(np.uint8)


def _list_numbers(value: Any) -> Sequence[float]:
    values = value if isinstance(value, tuple | list | np.ndarray) else (value,)
    return [one for one in values if isinstance(one, int | float)]


def _join_alpha(page: Any, samples: Samples, pixels: NDArray[np.uint8]) -> Image.Image:
    """Return grey or RGB with the first extra sample as alpha, if it is declared as such."""
    channels = pixels.shape[2]
    extra = [int(one) for one in page.extrasamples]
    if samples.shape[2] <= channels or not extra or extra[0] not in (_ASSOCIATED, _UNASSOCIATED):
        return Image.fromarray(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels))
    if samples.dtype.kind != "u":
        raise make_unsupported_pixels("A TIFF of floating-point numbers with transparency")
    alpha = reduce_to_8_bits(samples[..., channels : channels + 1], page.bitspersample)
    if channels == 1:
        pixels = pixels.repeat(3, axis=2)
    both = np.concatenate([pixels, alpha], axis=2)
    if extra[0] == _UNASSOCIATED:
        return Image.fromarray(both)
    return Image.frombytes("RGBa", (page.imagewidth, page.imagelength), both.tobytes()).convert("RGBA")


def _apply_palette(page: Any, samples: Samples) -> Image.Image:
    colours = np.asarray(page.colormap)
    if colours.max(initial=0) > 255:  # some programs write 8 bits where 16 should be
        colours = colours >> 8
    return Image.fromarray(np.ascontiguousarray(colours.astype(np.uint8).T[samples]))


def _read_lab(page: Any, samples: Samples) -> Image.Image:
    """Return CIE L*a*b*, whose a and b are signed, or offset by 128 in ICC's variant."""
    if samples.dtype.itemsize > 2 or samples.dtype.kind not in "ui":
        raise make_unsupported_pixels("A TIFF of such L*a*b* values")
    upper = (samples.view(f"u{samples.dtype.itemsize}") >> (8 * (samples.dtype.itemsize - 1))).astype(np.uint8)
    if int(page.photometric) == _ICCLAB:
        upper = upper ^ np.array([0, 128, 128], np.uint8)  # Pillow expects signed bytes
    return Image.frombytes("LAB", (page.imagewidth, page.imagelength), upper.tobytes())


def _convert_ycbcr(page: Any, pixels: NDArray[np.uint8]) -> Image.Image:
    if tuple(getattr(page, "subsampling", None) or (1, 1)) != (1, 1):
        raise make_unsupported_pixels("A TIFF of YCbCr with subsampling, without JPEG,")
    return Image.frombytes("YCbCr", (page.imagewidth, page.imagelength), pixels.tobytes()).convert("RGB")


def _decode_fax(data: bytes) -> Image.Image:
    """Decode the codings of fax machines, which only libtiff has, by Pillow, which turns the image upright."""
    return pillow.load(data, "TIFF")
