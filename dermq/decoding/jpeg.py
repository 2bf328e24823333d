"""JPEG: libjpeg-turbo by simplejpeg, which passes the decoder's warnings of lost data on, as Pillow does not.

12 bits and lossless coding are decoded by imagecodecs.
"""

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from dermq import formats
from dermq.decoding import exif, jpeg_arithmetic, jpeg_progressive, jpeg_scan
from dermq.decoding import jpeg_structure as structure
from dermq.decoding.jpeg_structure import Frame, Structure
from dermq.decoding.raster import (
    Limits,
    Raster,
    make_damaged,
    make_unsupported_pixels,
    note_extra_bytes,
    reduce_to_8_bits,
    tell_damage,
)
from dermq.notes import Note

_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
"""simplejpeg's name of the colour space, by the number of components."""
_EIGHT_BITS = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_KEPT = frozenset({structure.DQT, structure.DHT, structure.DRI, structure.SOS, 0xCC, *_EIGHT_BITS})
_PLAIN_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_BLOCK = 16
"""The largest side of a minimum coded unit that encoders use."""
_RARE_SAMPLING = "Could not determine subsampling"
"""What simplejpeg says of a header whose sampling factors it does not know."""
_REDUCTIONS = (8, 4, 2)


def read(data: bytes, limits: Limits) -> Raster:
    """Decode the first picture of a JPEG. Raises Permanent when pixels are missing, TooLarge over ``limits``."""
    found = structure.parse(data)
    frame = _check_frame(found)
    size = frame.width, frame.height
    formats.check_pixels(*size, limits.max_pixels)
    structure.check_scans(found)
    jpeg_scan.check_zeros(data, found)
    if frame.marker in _EIGHT_BITS and frame.precision == 8:
        pixels, spare = _decode(data, found, limits.draft_size)
    else:
        pixels, spare = _decode_by_imagecodecs(data, found), 0
    if len(frame.components) == 4 and found.has_adobe(data):
        pixels = 255 - pixels
    orientation = exif.find_orientation(found.find_exif(data), found.find_xmp(data))
    return Raster(
        _make_picture(pixels), size, orientation, found.find_profile(data), notes=_find_notes(data, found, spare)
    )


def decode_samples(data: bytes, *, ycc: bool, size: formats.Size) -> NDArray[Any]:
    """Return the samples of a JPEG inside a file that says what its components are: ``(h, w)`` or RGB ``(h, w, 3)``.

    The markers of JFIF and Adobe win over that, because they are written by who encoded. Raises Permanent, also for one
    that has not the ``size`` that the file announces.
    """
    check(data, most=size)
    found = structure.parse(data)
    frame = _check_frame(found)
    if len(frame.components) == 1:
        return _decode_by_library(data)
    stored = "YCBCR" if ycc or found.holds_ycc(data) else "RGB"
    return _decode_by_library(data, colorspace=stored, outcolorspace="RGB")


def _make_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    height, width, channels = pixels.shape
    if channels == 4:
        return Image.frombytes("CMYK", (width, height), pixels.tobytes())
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def check(data: bytes, *, most: formats.Size) -> None:
    """Raise Permanent unless all pixels of a JPEG inside another file are there.

    One that is larger than ``most``, the part of the file that it stands for, is not decoded at all. Its sides may be
    rounded up to whole blocks.
    """
    found = structure.parse(data)
    frame = _check_frame(found)
    if frame.width >= most[0] + _BLOCK or frame.height >= most[1] + _BLOCK:
        raise make_damaged("a part of its pixels has another size than it announces")
    structure.check_scans(found)
    jpeg_scan.check_zeros(data, found)
    if frame.marker in _EIGHT_BITS and frame.precision == 8:
        _decode(data, found, None)
    else:
        jpeg_scan.check_symbols(data, found)


def _check_frame(found: Structure) -> Frame:
    frame = found.frame
    assert frame is not None
    if frame.height == 0:
        raise make_unsupported_pixels("A JPEG whose header has no height")
    if frame.width == 0:
        raise make_damaged("its width is 0")
    if len(frame.components) not in _SPACES:
        raise make_unsupported_pixels(f"A JPEG with {len(frame.components)} colour components")
    return frame


def _decode(data: bytes, found: Structure, draft_size: int | None) -> tuple[NDArray[np.uint8], int]:
    """Return the pixels ``(h, w, c)``, and how many bytes were left out because they belong to none."""
    pixels, spare = _decode_without_spare_bytes(data, found, draft_size)
    frame = found.frame
    assert frame is not None
    if frame.marker == structure.PROGRESSIVE_HUFFMAN:
        jpeg_progressive.check(_drop_spare_bytes(data, found)[0])
    elif frame.marker in jpeg_scan.ARITHMETIC:
        jpeg_arithmetic.check(_drop_spare_bytes(data, found)[0], _SPACES[len(frame.components)])
    return pixels, spare


def _decode_without_spare_bytes(data: bytes, found: Structure, draft_size: int | None) -> tuple[NDArray[np.uint8], int]:
    whole = data if found.end is not None else data.removesuffix(b"\xff") + structure.END
    try:
        return _decode_strictly(whole, found, draft_size), 0
    except ValueError as err:
        clean, spare = _drop_spare_bytes(data, found)
        if _RARE_SAMPLING in str(err):
            return _decode_rare_sampling(clean), spare
        try:
            return _decode_strictly(clean, found, draft_size), spare
        except ValueError:
            raise make_damaged(str(err).rstrip(".")) from err


def _decode_rare_sampling(clean: bytes) -> NDArray[np.uint8]:
    """Decode components whose resolutions simplejpeg does not know, such as those of reduced CMYK."""
    found = structure.parse(clean)
    frame = found.frame
    assert frame is not None
    if frame.marker in jpeg_scan.ARITHMETIC:
        raise make_unsupported_pixels("An arithmetically coded JPEG with components of such resolutions")
    progressive = frame.marker in structure.PROGRESSIVE
    (jpeg_progressive.check_symbols if progressive else jpeg_scan.check_symbols)(clean, found)
    pixels = _decode_by_library(clean)
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_strictly(data: bytes, found: Structure, draft_size: int | None) -> NDArray[np.uint8]:
    """Decode at a half, a quarter or an eighth if no side falls below ``draft_size``. Raises ValueError."""
    frame = found.frame
    assert frame is not None
    space = _SPACES[len(frame.components)]
    pixels: NDArray[np.uint8]
    if draft_size is None:
        pixels = simplejpeg.decode_jpeg(data, space)
        return pixels
    largest = min(frame.width, frame.height) // draft_size
    by = next((one for one in _REDUCTIONS if largest >= one), 1)
    height, width = -(-frame.height // by), -(-frame.width // by)
    pixels = simplejpeg.decode_jpeg(data, space, min_height=height, min_width=width)
    return pixels


def _drop_spare_bytes(data: bytes, found: Structure) -> tuple[bytes, int]:
    """Return the JPEG without metadata, without bytes between segments and without zeros behind the data of scans.

    The decoder warns of all three, but no pixel depends on them. Also return the number of bytes that belong to none.
    """
    parts, spare, scans = [b"\xff\xd8"], found.between, iter(found.scans)
    progressive = found.frame is not None and found.frame.marker in structure.PROGRESSIVE
    for marker, start, stop in found.segments:
        body = data[start:stop]
        if marker == structure.APP0 and body[2:7] == b"JFIF\0":
            parts.append(_PLAIN_JFIF)
        elif marker in _KEPT or (marker == structure.APP14 and body[2:7] == b"Adobe"):
            if marker == structure.SOS and not progressive:
                body = body[:-3] + b"\0\x3f\0"  # some encoders write other numbers here, which mean nothing
            parts += [bytes((0xFF, marker)), body]
        if marker == structure.SOS:
            scan = next(scans)
            coded = data[scan.start : scan.stop]
            kept = coded.rstrip(b"\0")
            kept += b"\0" * (len(kept) < len(coded) and kept.endswith(b"\xff"))
            spare += len(coded) - len(kept)
            parts.append(kept)
    return b"".join(parts) + structure.END, spare


def _decode_by_imagecodecs(data: bytes, found: Structure) -> NDArray[np.uint8]:
    """Decode what libjpeg-turbo's usual interface does not: 12 bits, and lossless coding."""
    frame = found.frame
    assert frame is not None
    sequential = frame.marker in (0xC1, 0xC3)
    if not sequential or not 2 <= frame.precision <= 16:
        raise make_unsupported_pixels(f"A {frame.precision}-bit JPEG of this coding (SOF{frame.marker - 0xC0})")
    jpeg_scan.check_symbols(data, found)
    pixels = _decode_by_library(data if found.end is not None else data + structure.END)
    return reduce_to_8_bits(pixels.reshape(*pixels.shape[:2], -1), frame.precision)


def _decode_by_library(data: bytes, **options: Any) -> NDArray[Any]:
    import imagecodecs  # only for these rare files

    with tell_damage():
        return np.asarray(imagecodecs.jpeg8_decode(data, **options))


def _find_notes(data: bytes, found: Structure, spare: int) -> tuple[Note, ...]:
    notes = []
    if spare:
        notes.append(note_extra_bytes(spare, "inside the file belong to no pixel"))
    behind = 0 if found.end is None else len(data) - found.end
    if behind and found.holds_further_pictures(data):
        notes.append(Note("further_pictures", "The file holds further pictures; the first one was read."))
    elif behind:
        notes.append(note_extra_bytes(behind))
    return tuple(notes)
