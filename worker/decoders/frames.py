"""The messages between a worker and a decoder over two pipes: a header of fixed length, then bytes.

Both run the same version of this file, so the format has no version. A decoder may have been taken over by the file
that it decoded: the worker accepts only what ``Answer`` can hold.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

READY = b"ready"
"""What a decoder says once, when it has given up its rights."""
MOST_TEXT_BYTES = 16_384
MOST_THUMBNAIL_BYTES = 1_000_000


@dataclass(frozen=True)
class Request:
    """How a file is to be decoded."""

    size: int
    """The side of the square of pixels that is wanted."""
    recipe_version: int
    draft: bool
    """Whether a large JPEG may be decoded at a fraction of its size."""
    max_pixels: int
    max_side: int

    LAYOUT = struct.Struct("<IHH?QI")

    def pack(self, file_bytes: int) -> bytes:
        """Return the header of a request with a file of this length, which follows it."""
        return self.LAYOUT.pack(file_bytes, self.size, self.recipe_version, self.draft, self.max_pixels, self.max_side)

    @classmethod
    def unpack(cls, header: bytes) -> tuple[int, "Request"]:
        """Read a header: the length of the file, and how it shall be decoded."""
        file_bytes, *rest = cls.LAYOUT.unpack(header)
        return file_bytes, cls(*rest)


class Kind(IntEnum):
    """What an answer says about the file."""

    DECODED = 0
    """Pixels follow."""
    REFUSED = 1
    """The file cannot be decoded: a code and a detail follow."""
    OUT_OF_MEMORY = 2
    FAILED = 3
    """Decoding raised an unexpected error, whose text follows."""


@dataclass(frozen=True)
class Answer:
    """The header of an answer. A text, pixels and a thumbnail follow."""

    kind: Kind
    width: int = 0
    height: int = 0
    text_bytes: int = 0
    pixel_bytes: int = 0
    thumbnail_bytes: int = 0

    LAYOUT = struct.Struct("<BIIIII")

    def pack(self) -> bytes:
        """Return the bytes of this header."""
        return self.LAYOUT.pack(
            self.kind, self.width, self.height, self.text_bytes, self.pixel_bytes, self.thumbnail_bytes
        )

    @classmethod
    def unpack(cls, header: bytes, *, pixel_bytes: int) -> "Answer":
        """Read a header. Raises ValueError unless its fields are those of a valid answer.

        ``pixel_bytes`` is the number of bytes of the pixels that were asked for.
        """
        kind, width, height, text, pixels, thumbnail = cls.LAYOUT.unpack(header)
        found = cls(Kind(kind), width, height, text, pixels, thumbnail)
        if text > MOST_TEXT_BYTES or thumbnail > MOST_THUMBNAIL_BYTES:
            raise ValueError("too much text or too large a thumbnail")
        if pixels != (pixel_bytes if found.kind is Kind.DECODED else 0):
            raise ValueError("another number of pixels than was asked for")
        return found
