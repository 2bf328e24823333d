"""AVIF (AOMedia): AV1 in a base media file. The size is a property of an item, which stands at no fixed place."""

from dermq.formats.base_media import list_brands
from dermq.formats.image_format import ImageFormat

BRANDS = frozenset({b"avif", b"avis"})

FORMAT = ImageFormat("AVIF", "image/avif", lambda head: bool(list_brands(head) & BRANDS), lambda head: None)
