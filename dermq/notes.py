"""Notes on images: what a lab should know about a file that was decoded without an error.

An error keeps an image from being classified; a note never does. They are stored on the image's row as JSON.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Note:
    """A stable ``code`` for programs and a ``detail``, a sentence for people, as errors have them."""

    code: str
    detail: str


def as_json(notes: Iterable[Note]) -> list[dict[str, str]] | None:
    """Return notes as a row stores them; None when there are none."""
    return [asdict(note) for note in notes] or None


def from_json(stored: list[dict[str, str]] | None) -> tuple[Note, ...]:
    """Return the notes that a row stores."""
    return tuple(Note(**note) for note in stored or ())


def merge(first: Iterable[Note], second: Iterable[Note]) -> tuple[Note, ...]:
    """Return the notes of both, in order, each once."""
    return tuple(dict.fromkeys((*first, *second)))
