"""The image formats that dermq accepts, and what the leading bytes of a file tell.

Only leading bytes are read here, at fixed places and without any image library, so that the web and the unpacker never
parse an image. To add a format, write a module beside this one and list it below; ``dermq.decoding`` decodes it.
"""

from dermq import errors
from dermq.formats import avif, bmp, dicom, heic, jpeg, jpeg2000, others, png, tiff, webp
from dermq.formats.image_format import HEAD_BYTES, ImageFormat, Size

__all__ = [
    "FORMATS",
    "HEAD_BYTES",
    "ImageFormat",
    "Size",
    "check",
    "check_pixels",
    "check_side",
    "find",
    "list_media_types",
    "list_names",
    "make_unsupported",
]

FORMATS: tuple[ImageFormat, ...] = (
    *(jpeg.FORMAT, png.FORMAT, tiff.FORMAT, webp.FORMAT, bmp.FORMAT),
    *(heic.FORMAT, avif.FORMAT, jpeg2000.FORMAT, dicom.FORMAT),
)


def check(head: bytes, *, max_pixels: int, max_side: int) -> ImageFormat:
    """Return the format of a file by its leading bytes, at most ``HEAD_BYTES`` of them.

    Raises UnsupportedFormat for bytes of no accepted format and TooLarge for more than ``max_pixels`` pixels or for a
    side of more than ``max_side``. A size that stands at no fixed place is left to the decoder.
    """
    found = find(head)
    if found is None:
        raise make_unsupported(head)
    size = found.size(head)
    if size is not None:
        check_side(*size, max_side)
        check_pixels(*size, max_pixels)
    return found


def find(head: bytes) -> ImageFormat | None:
    """Return the format whose leading bytes these are, or None."""
    return None if others.is_raw(head) else next((one for one in FORMATS if one.matches(head)), None)


def check_side(width: int, height: int, max_side: int) -> None:
    """Raise TooLarge for an image of more than ``max_side`` pixels on a side."""
    if max(width, height) > max_side:
        raise errors.TooLarge(
            "side_too_long", f"{width:,} x {height:,} pixels; at most {max_side:,} on a side are accepted."
        )


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise TooLarge for an image of more than ``max_pixels`` pixels."""
    if width * height > max_pixels:
        raise errors.TooLarge(
            "too_many_pixels",
            f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are accepted.",
        )


def make_unsupported(head: bytes) -> errors.UnsupportedFormat:
    """Return the error for a file that has none of the accepted formats; it says what the file seems to be."""
    return errors.UnsupportedFormat(
        "unsupported_format", f"The content {others.describe(head)}; {list_names()} are accepted."
    )


def list_names() -> str:
    """Return the formats as a text lists them: ``JPEG, PNG and TIFF``."""
    *most, last = (one.name for one in FORMATS)
    return f"{', '.join(most)} and {last}"


def list_media_types() -> tuple[str, ...]:
    """Return the media types that an upload may say."""
    return tuple(one.media_type for one in FORMATS)
