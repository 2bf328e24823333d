"""TIFF 6.0 and BigTIFF: the size is a tag of a directory that may stand anywhere in the file."""

from dermq.formats.image_format import ImageFormat

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SWAPPED = (b"II\0*", b"MM*\0")
"""Some programs write the version number in the other byte order. Decoders read such files all the same."""

FORMAT = ImageFormat("TIFF", "image/tiff", lambda head: head.startswith(_SIGNATURES + _SWAPPED), lambda head: None)
