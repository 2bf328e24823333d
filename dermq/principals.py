"""On whose behalf something is done: a lab's token or session, the operator, or the reaper."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a principal may do."""

    READ = "read"
    """Look at batches, images and reports."""
    SUBMIT = "submit"
    """Create batches, add files to them, and seal them."""
    MANAGE = "manage"
    """Cancel, retry and delete batches."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Principal:
    """Who does something, as the audit names it."""

    name: str
    """E.g. ``token 'laptop'``, ``session of token 'laptop'``, ``operator``, ``reaper``."""


@dataclass(frozen=True)
class LabPrincipal(Principal):
    """A lab's access token, or a session of a browser that signed in with one."""

    lab_id: int
    lab_name: str
    token_id: int
    """The access token that is used, or on which the session stands."""
    scopes: frozenset[Scope] = ALL_SCOPES


OPERATOR = Principal("operator")
REAPER = Principal("reaper")
