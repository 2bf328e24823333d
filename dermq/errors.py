"""Errors, sorted by what must be done about them.

Two places act on the class of an error: ``web.errors`` makes an HTTP answer of it, and the worker decides by it what to
record. Every text says what was wrong and what is allowed.
"""


class DermqError(Exception):
    """The base class, with a stable ``code`` for programs and a ``detail``, a sentence for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Rejected(DermqError):
    """Raised when a request cannot be accepted as it stands; shown to the caller."""


class NotFound(Rejected):
    """Raised when a request names something that does not exist or belongs to another lab."""


class Unauthorized(Rejected):
    """Raised when a token, a sign-in code or a session is missing, wrong, expired or revoked."""


class Forbidden(Rejected):
    """Raised when a principal may not do something: it lacks a scope, a quota is used up, or its lab is disabled."""


class TooMany(Rejected):
    """Raised when a caller does something too often; it may try again after ``retry_seconds``."""

    def __init__(self, code: str, detail: str, retry_seconds: int) -> None:
        super().__init__(code, detail)
        self.retry_seconds = retry_seconds


class TooLarge(Rejected):
    """Raised when a body, an image or a batch is over a limit."""


class UnsupportedFormat(Rejected):
    """Raised when a file has a format that dermq does not accept."""


class Conflict(DermqError):
    """Raised when the present state, such as that of a batch, does not allow the request."""


class Permanent(DermqError):
    """Raised when an image or an archive can never be processed; recorded on it, and not retried."""


class Transient(DermqError):
    """Raised when the blob store, the database or a device fails; no image is to blame, and the work is done later."""


class Unavailable(Transient):
    """Raised when a service cannot take the request now; the caller may try again after ``retry_seconds``."""

    def __init__(self, code: str, detail: str, retry_seconds: int = 5) -> None:
        super().__init__(code, detail)
        self.retry_seconds = retry_seconds


class OutOfSpace(Transient):
    """Raised when the disk that holds the blobs or the database is full."""


class Unfit(DermqError):
    """Raised when a worker must not work, because its bundle or its engine cannot be used."""
