"""Whether the data of an arithmetically coded JPEG is all there (ITU-T T.81, annex D).

Behind the end of a scan, a decoder reads zeros without a warning, because encoders leave zeros out there. So here zeros
are put there, and libjpeg tells how many of them it did not need.
"""

import re

import simplejpeg

from dermq.decoding.jpeg_structure import parse
from dermq.decoding.raster import make_damaged

_ADDED = 64
_MOST_READ = 12
"""A decoder of a whole scan reads no more bytes ahead, or that an encoder has left out."""
_LEFT = re.compile(r"(\d+) extraneous bytes")


def check(data: bytes, space: str) -> None:
    """Raise Permanent when a scan of ``data`` ends before its pixels; ``data`` is without spare bytes."""
    for scan in parse(data).scans:
        if _ADDED - _count_left(data[: scan.stop] + bytes(_ADDED) + data[scan.stop :], space) > _MOST_READ:
            raise make_damaged("a part of its pixels is missing")


def _count_left(data: bytes, space: str) -> int:
    try:
        simplejpeg.decode_jpeg(data, space)
    except ValueError as err:
        told = _LEFT.search(str(err))
        return int(told[1]) if told else 0
    return 0
