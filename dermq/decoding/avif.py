"""AVIF: AV1, decoded by libavif, which is a part of Pillow."""

from PIL import AvifImagePlugin

from dermq.decoding import base_media, exif, pillow
from dermq.decoding.raster import Limits, Raster, make_several_frames, make_unsupported_pixels

AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def read(data: bytes, limits: Limits) -> Raster:
    """Decode an AVIF of one picture. Raises Permanent when pixels are missing."""
    if base_media.is_hdr(data):
        raise make_unsupported_pixels("An AVIF for high dynamic range")
    base_media.check(data)
    image, info = pillow.load_with_info(data, "AVIF", limits.max_pixels)
    if info["frames"] > 1:
        raise make_several_frames(info["frames"])
    return Raster(image, image.size, exif.find_orientation(info.get("exif")), info.get("icc_profile"))
