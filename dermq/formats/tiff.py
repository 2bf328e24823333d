"""TIFF 6.0 and BigTIFF: the size is a tag of a directory that may stand anywhere in the file."""

from dermq.formats.image_format import ImageFormat

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

FORMAT = ImageFormat("TIFF", "image/tiff", lambda head: head.startswith(_SIGNATURES), lambda head: None)
