"""The error for a file that has too many parts of one kind."""

from dermq import errors


def limit(count: int, most: int, what: str) -> None:
    """Raise Permanent ``too_many_parts`` for more than ``most`` parts."""
    if count > most:
        raise errors.Permanent(
            "too_many_parts", f"The file is made of more {what} than an image needs; at most {most:,} are accepted."
        )
