"""Refuses a file of too many parts or pixels before any image library reads it.

A small file can name millions of scans, chunks, tags or strips, and a library reads them one by one. Each format has a
module that walks over the file by the lengths that it states and only counts. It says nothing about damage: where a
walk cannot go on, it ends, and the library finds what is wrong.

To add a format, write a module with ``check`` and list it below; a test holds the list to ``dermq.formats``.
"""

from collections.abc import Callable, Iterable

from dermq import errors, formats
from dermq.formats import Size
from worker.decoders.structure import base_media, dicom, jpeg, jpeg2000, png, tiff, webp

CHECKS: dict[str, Callable[[bytes], Iterable[Size]]] = {
    "JPEG": jpeg.check,
    "PNG": png.check,
    "TIFF": tiff.check,
    "WebP": webp.check,
    "BMP": lambda data: (),  # one header, one table of at most 256 colours, and the pixels
    "HEIC": base_media.check,
    "AVIF": base_media.check,
    "JPEG 2000": jpeg2000.check,
    "DICOM": dicom.check,
}
"""By format: counts the parts, raises Permanent ``too_many_parts``, and returns the sizes that the file states."""


def check(data: bytes, *, max_pixels: int, max_side: int) -> None:
    """Raise Permanent for a file with more parts or pixels than are accepted. Content of no format is let through."""
    head = data[: formats.HEAD_BYTES]
    found = formats.find(head)
    if found is None:
        return
    stated = found.size(head)
    try:
        for size in (*([stated] if stated else []), *CHECKS[found.name](data)):
            formats.check_side(*size, max_side)
            formats.check_pixels(*size, max_pixels)
    except errors.TooLarge as err:
        raise errors.Permanent(err.code, err.detail) from err
