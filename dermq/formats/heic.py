"""HEIC (ISO/IEC 23008-12): HEVC in a base media file, as telephones write it. The size stands at no fixed place."""

from dermq.formats.avif import BRANDS as AVIF_BRANDS
from dermq.formats.base_media import list_brands
from dermq.formats.image_format import ImageFormat

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def _matches(head: bytes) -> bool:
    brands = list_brands(head)
    return bool(brands & _BRANDS) and not brands & AVIF_BRANDS


FORMAT = ImageFormat("HEIC", "image/heic", _matches, lambda head: None)
