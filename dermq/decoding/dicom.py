"""DICOM (PS3.3, PS3.5): photographs of one frame, by pydicom; coded frames go to the decoders of their codings.

Of all that a file says, only what its pixels need is looked at, and nothing of it is kept but width and height. So no
text of pydicom, which may repeat a value, stands in an error.
"""

import io
import logging
import struct
import warnings
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import encaps, uid
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import pixel_array

from dermq import errors, formats
from dermq.decoding import jpeg, jpeg2000
from dermq.decoding.raster import (
    Limits,
    Raster,
    check_zeros,
    make_damaged,
    make_several_frames,
    make_unsupported_pixels,
    reduce_to_8_bits,
    tell_damage,
)
from dermq.notes import Note

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its messages repeat what a file says of a patient

_PHOTOGRAPHS = ("1.2.840.10008.5.1.4.1.1.77.1.", "1.2.840.10008.5.1.4.1.1.7")
"""Beginnings of the storage classes of visible light images and of secondary captures."""
_SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
_JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
_JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
_JPEG_LS_HEADER = b"\xff\xf7"
_JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
_NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    }
)
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_BURNED_IN = Note("burned_in_annotation", "The file says that its picture shows text, which may name a patient.")

Samples = NDArray[Any]


def read(data: bytes, limits: Limits) -> Raster:
    """Decode the one frame of a DICOM photograph.

    Raises UnsupportedFormat for an object without pixels, TooLarge over ``limits``, and Permanent for one that is
    damaged, has several frames, or is no photograph.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of values that break the standard
            found = pydicom.dcmread(io.BytesIO(data), force=True)
            size = _check(found, limits)
            image = _decode(found)
            profile = _find_profile(found)
            notes = (_BURNED_IN,) if found.get("BurnedInAnnotation") == "YES" else ()
    except (errors.DermqError, MemoryError):
        raise
    except Exception as err:  # pydicom raises any exception for a damaged file
        raise make_damaged("its elements cannot be read") from err
    return Raster(image, size, profile=profile, notes=notes)


def _check(found: Any, limits: Limits) -> formats.Size:
    """Return width and height. Raises what ``read`` does."""
    if "PixelData" not in found:
        if "FloatPixelData" in found or "DoubleFloatPixelData" in found:
            raise make_unsupported_pixels("A DICOM image of floating-point numbers")
        raise errors.UnsupportedFormat(
            "unsupported_format", "The content is a DICOM object without pixels, not an image; it may have been cut."
        )
    kind = str(found.get("SOPClassUID", ""))
    if kind and (not kind.startswith(_PHOTOGRAPHS) or kind.startswith(_SLIDES)):
        name = uid.UID(kind).name
        told = "" if name == kind else f" ({name})"  # an unknown one could be any text
        raise make_unsupported_pixels(f"A DICOM object that is no photograph{told}")
    frames = int(found.get("NumberOfFrames") or 1)
    if frames > 1:
        raise make_several_frames(frames)
    width, height = int(found.Columns), int(found.Rows)
    formats.check_pixels(width, height, limits.max_pixels)
    if int(found.get("PixelRepresentation", 0)) or not 1 <= int(found.BitsStored) <= 16:
        raise make_unsupported_pixels("A DICOM image of signed samples, or of such bits")
    return width, height


def _decode(found: Any) -> Image.Image:
    """Return the frame as an image of 8 bits a channel."""
    colours = str(found.PhotometricInterpretation)
    samples = _read_samples(found, colours)
    if samples.shape[:2] != (found.Rows, found.Columns):
        raise make_damaged("its pixels have another size than it announces")
    if colours in _GREY and samples.ndim == 2:
        grey = _show_grey(found, samples)
        return Image.fromarray(255 - grey if colours == "MONOCHROME1" else grey)
    if colours == "PALETTE COLOR":
        mapped = apply_color_lut(samples, found)
        bits = int(found.RedPaletteColorLookupTableDescriptor[2])
        return Image.fromarray(np.ascontiguousarray(reduce_to_8_bits(mapped, max(bits, 8 * mapped.dtype.itemsize))))
    if samples.ndim != 3 or samples.shape[2] != 3 or not (colours == "RGB" or colours.startswith("YBR")):
        raise make_unsupported_pixels("A DICOM image of this photometric interpretation")
    return Image.fromarray(np.ascontiguousarray(reduce_to_8_bits(samples, int(found.BitsStored))))


def _read_samples(found: Any, colours: str) -> Samples:
    """Return grey samples, palette indices, or RGB."""
    if "TransferSyntaxUID" not in found.file_meta:
        found.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian  # the default (PS3.5, 10.1)
    syntax = found.file_meta.TransferSyntaxUID
    if syntax in _NATIVE:
        return np.asarray(pixel_array(found, raw=False, decoding_plugin="pydicom"))
    if syntax not in _JPEG | _JPEG_LS | _JPEG_2000:
        name = uid.UID(syntax).name
        raise make_unsupported_pixels(f"A DICOM image of {'this coding' if name == syntax else name}")
    size = int(found.Columns), int(found.Rows)
    frame = encaps.get_frame(found.PixelData, 0, number_of_frames=1)
    if syntax in _JPEG:
        return jpeg.decode_samples(frame, ycc=colours.startswith("YBR"), size=size)
    check_zeros(frame)
    if syntax in _JPEG_2000:
        return jpeg2000.decode_samples(frame, size)
    return _decode_jpeg_ls(frame, ycc=colours.startswith("YBR"), size=size)


def _decode_jpeg_ls(frame: bytes, *, ycc: bool, size: formats.Size) -> Samples:
    import imagecodecs  # only for these rare files

    at = frame.find(_JPEG_LS_HEADER)
    height, width = struct.unpack_from(">HH", frame, at + 5) if 0 <= at <= len(frame) - 9 else (0, 0)
    if (width, height) != size:
        raise make_damaged("its pixels have another size than it announces")
    with tell_damage():
        samples = np.asarray(imagecodecs.jpegls_decode(frame))
    return convert_color_space(samples, "YBR_FULL", "RGB") if ycc else samples


def _show_grey(found: Any, samples: Samples) -> NDArray[np.uint8]:
    """Return grey as the file wants it shown: through its window (PS3.3, C.11.2.1.2), or by the bits that it stores."""
    bits = int(found.BitsStored)
    if "RescaleSlope" in found and (float(found.RescaleSlope), float(found.get("RescaleIntercept", 0))) != (1.0, 0.0):
        raise make_unsupported_pixels("A DICOM image of measured values")
    centre, width = (_find_first_number(found.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width <= 1:
        return reduce_to_8_bits(samples, bits)
    shown: NDArray[np.float32] = (samples.astype(np.float32) - (centre - 0.5)) / (width - 1) + 0.5
    shown = np.rint(255 * np.clip(shown, 0, 1))
    return shown.astype(np.uint8)


def _find_first_number(value: Any) -> float | None:
    values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return None if not values or values[0] is None else float(values[0])


def _find_profile(found: Any) -> bytes | None:
    """Return the ICC profile of the image or of its optical path."""
    paths = found.get("OpticalPathSequence") or [found]
    profile = paths[0].get("ICCProfile") or found.get("ICCProfile")
    return profile if isinstance(profile, bytes) else None
