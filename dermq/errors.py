"""Errors, sorted by what must be done about them.

Two places read the class: ``web.errors`` turns it into an answer, the worker's pipeline into what is recorded.
Every text says what was wrong and what is allowed.
"""


class DermqError(Exception):
    """The root: a stable ``code`` for programs and a ``detail`` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Rejected(DermqError):
    """Raised when a request cannot be accepted as it stands; shown to the caller."""


class NotFound(Rejected):
    """Raised when a lab names something that it does not have."""


class Unauthorized(Rejected):
    """Raised when a token, a sign-in code or a session is missing, wrong, expired or revoked."""


class Forbidden(Rejected):
    """Raised when a principal lacks the scope that a call needs."""


class TooLarge(Rejected):
    """Raised when a body, an image or a batch is over a limit."""


class UnsupportedFormat(Rejected):
    """Raised when bytes are of no format that dermq takes."""


class Conflict(DermqError):
    """Raised when the state of things forbids the request now."""


class Permanent(DermqError):
    """Raised when an image can never be classified; recorded on the image, not retried."""


class Transient(DermqError):
    """Raised when the surroundings failed (blob store, database, device); nothing is charged to an image."""


class Unavailable(Transient):
    """Raised when a service cannot take the request now; the caller may try again."""


class OutOfSpace(Transient):
    """Raised when the disk that holds the blobs or the database is full."""


class Unfit(DermqError):
    """Raised when a worker must not work: its bundle cannot be verified."""
