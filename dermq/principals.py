"""Principals, on whose behalf something is done: a lab's token or session, the operator, or the reaper."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a principal may do."""

    READ = "read"
    """Look at batches, images and reports."""
    SUBMIT = "submit"
    """Create batches, add files to them, and seal them."""
    MANAGE = "manage"
    """Cancel, retry and delete batches; list and end the lab's sessions, list and revoke its access tokens."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Principal:
    """One who acts, with the name that the audit log gives."""

    name: str
    """E.g. ``token 'laptop'``, ``session of token 'laptop'``, ``operator``, ``reaper``."""


@dataclass(frozen=True)
class LabPrincipal(Principal):
    """A lab's access token, or a session of a browser that signed in with one."""

    lab_id: int
    lab_name: str
    token_id: int
    """The access token that was sent, or with which the session was opened."""
    scopes: frozenset[Scope] = ALL_SCOPES
    session_id: int | None = None
    """The session of the browser; None when an access token was sent."""


OPERATOR = Principal("operator")
REAPER = Principal("reaper")
