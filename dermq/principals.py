"""On whose behalf something is done: a lab's token or session, the operator, or the reaper."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a principal may do."""

    READ = "read"
    SUBMIT = "submit"
    MANAGE = "manage"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Principal:
    """Who does something, as the audit names it."""

    name: str
    """E.g. ``token 'laptop'``, ``session of token 'laptop'``, ``operator``, ``reaper``."""
    lab_id: int | None = None
    """The lab that a token or a session belongs to; None for the operator and the reaper."""
    token_id: int | None = None
    """The access token that is used, or on which the session stands."""
    scopes: frozenset[Scope] = ALL_SCOPES


OPERATOR = Principal("operator")
REAPER = Principal("reaper")
