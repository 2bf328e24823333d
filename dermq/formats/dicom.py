"""DICOM (PS3.10): a preamble of 128 bytes, ``DICM``, then elements, of which two have the size, at no fixed place."""

from dermq.formats.image_format import ImageFormat

_PREAMBLE_BYTES = 128
_META_GROUP = b"\x02\0\0\0UL"
"""The first element of a file whose preamble is missing."""


def _matches(head: bytes) -> bool:
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM" or head.startswith(_META_GROUP)


FORMAT = ImageFormat("DICOM", "application/dicom", _matches, lambda head: None)
