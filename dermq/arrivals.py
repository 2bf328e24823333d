"""From a name and a stream of bytes to an arrival: what the web and the unpacker check before anything is accepted."""

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dermq import errors, imaging, models
from dermq.blobs import Blobs, Incoming
from dermq.settings import Settings

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Arrival:
    """A whole, checked image file that waits to be put into a batch."""

    name: str
    file: Incoming
    header: imaging.Header


def check_name(name: str) -> str:
    """Return ``name`` normalised (NFC, forward slashes). Raises Rejected unless it is a relative path in bounds."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    if not name or name.isspace():
        raise errors.Rejected("bad_name", "The name is empty; a relative path of 1 to 255 characters is accepted.")
    if len(name) > models.NAME_LENGTH:
        raise errors.Rejected(
            "bad_name", f"The name has {len(name)} characters; at most {models.NAME_LENGTH} are accepted."
        )
    if name != printable(name):
        raise errors.Rejected("bad_name", "The name holds control characters; printable characters are accepted.")
    parts = name.split("/")
    if ".." in parts or "." in parts or "" in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise errors.Rejected(
            "bad_name", "The name is not a plain relative path; parts may not be empty, '.', '..' or a drive."
        )
    return name


def printable(text: str) -> str:
    """``text`` with a replacement character for each one that no database or terminal should be given."""
    return "".join("\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character for character in text)


@contextlib.contextmanager
def taken(blobs: Blobs, name: str, chunks: Iterable[bytes], settings: Settings) -> Iterator[Arrival]:
    """Write ``chunks`` to an incoming file and check it; the file is gone after the block unless it was put.

    Raises Rejected (TooLarge, UnsupportedFormat) for what is refused and OutOfSpace when the disk is full.
    """
    name = check_name(name)
    with blobs.incoming() as file:
        for chunk in chunks:
            if file.bytes + len(chunk) > settings.max_image_bytes:
                raise too_large(settings)
            file.write(chunk)
        yield Arrival(name, file, check_content(file, settings))


def check_content(file: Incoming, settings: Settings) -> imaging.Header:
    """Finish an incoming file and read its header; never decodes.

    Raises Rejected for an empty file, UnsupportedFormat and TooLarge as ``imaging.identify`` does.
    """
    if file.bytes == 0:
        raise errors.Rejected("empty_file", "The file has 0 bytes.")
    file.finish()
    with file.path.open("rb") as content:
        if content.read(4) in _ZIP_MAGIC:
            raise errors.UnsupportedFormat(
                "archive",
                "The content is a ZIP archive, not an image. Archives inside archives are not unpacked; "
                "a ZIP of images goes to the batch's archive address.",
            )
        content.seek(0)
        return imaging.identify(content, max_pixels=settings.max_image_pixels)


def too_large(settings: Settings) -> errors.TooLarge:
    """The error for an image file over the limit."""
    return errors.TooLarge(
        "image_too_large", f"The file has more than {settings.max_image_bytes:,} bytes, the most that is accepted."
    )
