"""What the registry lists of an image format."""

from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 65_536
"""Leading bytes of a file that are read to recognise its format and size."""

Size = tuple[int, int]
"""Width and height in pixels, as the file stores them: before it is turned upright."""


@dataclass(frozen=True)
class ImageFormat:
    """An image format, recognised by its leading bytes."""

    name: str
    """As people write it."""
    media_type: str
    matches: Callable[[bytes], bool]
    """Whether leading bytes are those of the format."""
    size: Callable[[bytes], Size | None]
    """Read the size from leading bytes. None where it stands at no fixed place, or too far behind."""
