"""DICOM files of one picture, in the codings and colours that photographs have."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import encaps, uid
from pydicom.dataset import Dataset, FileMetaDataset

from tests import samples

PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
PATIENT = "Doe^Jane"


def write(
    pixels: NDArray[Any],
    colours: str = "RGB",
    syntax: str = uid.ExplicitVRLittleEndian,
    *,
    frame: bytes | None = None,
    bits: int = 8,
    stored: int | None = None,
    kind: str = PHOTOGRAPH,
    **elements: Any,
) -> bytes:
    """A file of ``pixels (h, w)`` or ``(h, w, 3)``, or of their coded ``frame``; ``elements`` are further ones."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = uid.UID(syntax)
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = uid.UID(kind)
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = uid.UID("1.2.3")
    found.PatientName, found.PatientID, found.DeviceSerialNumber = PATIENT, "4711-x", "SN-0815"
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = colours
    found.BitsAllocated, found.BitsStored, found.PixelRepresentation = bits, stored or bits, 0
    found.HighBit = found.BitsStored - 1
    for name, value in elements.items():
        setattr(found, name, value)
    big = syntax == uid.ExplicitVRBigEndian
    plain = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    found.PixelData = plain if frame is None else encaps.encapsulate([frame])
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    found["PixelData"].is_undefined_length = frame is not None
    out = io.BytesIO()
    pydicom.dcmwrite(out, found, enforce_file_format=True)
    return out.getvalue()


def colour(picture: Image.Image) -> dict[str, bytes]:
    """Files of a picture of colours."""
    pixels = np.array(picture)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).reshape(pixels.shape)
    plain_rgb = {"colorspace": "RGB", "outcolorspace": "RGB"}
    jfif = samples.encoded(picture, quality=97)
    return {
        "explicit": write(pixels),
        "dermoscopic": write(pixels, kind=DERMOSCOPIC),
        "implicit": write(pixels, syntax=uid.ImplicitVRLittleEndian),
        "big-endian": write(pixels, syntax=uid.ExplicitVRBigEndian),
        "deflated": write(pixels, syntax=uid.DeflatedExplicitVRLittleEndian),
        "planes": write(planes, PlanarConfiguration=1),
        "YBR": write(np.array(picture.convert("YCbCr")), "YBR_FULL"),
        "RLE": _run_lengths(write(pixels)),
        "JPEG with a JFIF marker": write(pixels, "YBR_FULL_422", uid.JPEGBaseline8Bit, frame=jfif),
        "JPEG that is called RGB": write(pixels, "RGB", uid.JPEGBaseline8Bit, frame=jfif),
        "JPEG of RGB": write(pixels, "RGB", uid.JPEGBaseline8Bit, frame=_jpeg(pixels, level=97, **plain_rgb)),
        "lossless JPEG": write(pixels, "RGB", uid.JPEGLosslessSV1, frame=_jpeg(pixels, lossless=True, **plain_rgb)),
        "JPEG-LS": write(pixels, "RGB", uid.JPEGLSLossless, frame=bytes(imagecodecs.jpegls_encode(pixels))),
        "JPEG 2000": write(pixels, "YBR_RCT", uid.JPEG2000Lossless, frame=_jpeg_2000(pixels)),
        "JPEG 2000 of RGB": write(pixels, "RGB", uid.JPEG2000, frame=_jpeg_2000(pixels, mct=False)),
    }


def grey(picture: Image.Image) -> dict[str, bytes]:
    """Files of a grey picture that hold its pixels exactly, but the one of 12-bit JPEG."""
    pixels = np.array(picture)
    wide = pixels.astype(np.uint16) << 4
    return {
        "MONOCHROME2": write(pixels, "MONOCHROME2"),
        "MONOCHROME1": write(255 - pixels, "MONOCHROME1"),
        "12 bits": write(wide, "MONOCHROME2", bits=16, stored=12),
        "12 bits, big-endian": write(wide, "MONOCHROME2", uid.ExplicitVRBigEndian, bits=16, stored=12),
        "12 bits, MONOCHROME1": write(4095 - wide, "MONOCHROME1", bits=16, stored=12),
        "window": write(pixels // 2 + 50, "MONOCHROME2", WindowCenter="114", WindowWidth="128.5"),
        "RLE": _run_lengths(write(pixels, "MONOCHROME2")),
        "12-bit JPEG": write(
            wide,
            "MONOCHROME2",
            uid.JPEGExtended12Bit,
            frame=_jpeg(wide, level=97, bitspersample=12),
            bits=16,
            stored=12,
        ),
        "12-bit lossless JPEG": write(
            wide,
            "MONOCHROME2",
            uid.JPEGLossless,
            frame=_jpeg(wide, lossless=True, bitspersample=12),
            bits=16,
            stored=12,
        ),
        "12-bit JPEG-LS": write(
            wide, "MONOCHROME2", uid.JPEGLSLossless, frame=bytes(imagecodecs.jpegls_encode(wide)), bits=16, stored=12
        ),
        "12-bit JPEG 2000": write(
            wide, "MONOCHROME2", uid.JPEG2000Lossless, frame=_jpeg_2000(wide, bitspersample=12), bits=16, stored=12
        ),
        "palette": _with_palette(pixels),
    }


def _with_palette(pixels: NDArray[np.uint8]) -> bytes:
    greys = (np.arange(256, dtype=np.uint16) * 257).tobytes()
    tables: dict[str, Any] = {}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = greys
    return write(pixels, "PALETTE COLOR", **tables)


def _run_lengths(data: bytes) -> bytes:
    found, out = pydicom.dcmread(io.BytesIO(data)), io.BytesIO()
    found.compress(uid.RLELossless, encoding_plugin="pydicom")
    pydicom.dcmwrite(out, found, enforce_file_format=True)
    return out.getvalue()


def _jpeg(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, **options))


def _jpeg_2000(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", **options))
