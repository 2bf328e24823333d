"""Access tokens: secrets with which a lab's programs authenticate. Only the SHA-256 of a secret is stored."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import errors, events
from dermq.models import MOST_IDS, AccessToken, BrowserSession, Lab
from dermq.principals import ALL_SCOPES, OPERATOR, LabPrincipal, Principal, Scope

PREFIX = "dermq_"
"""Every token begins with this, so that secret scanners find one that was published by mistake."""
_SECRET_BYTES = 32
_SHAPE = re.compile(rf"{PREFIX}[\w-]{{43}}", re.ASCII)
"""The form of every secret. Text of another form is no secret, which is decided without the database."""
USED_SECONDS = 60
"""Least time between two writes of ``last_used_at``, so that not every request costs a transaction."""


def issue(
    session: Session,
    lab: Lab,
    name: str,
    *,
    scopes: Iterable[Scope] = ALL_SCOPES,
    expires_at: datetime | None = None,
) -> str:
    """Issue an access token and return its secret, which cannot be read again later: only its hash is stored.

    Raises Rejected when no scope is given, or a time of expiry that is over.
    """
    now, chosen = datetime.now(UTC), sorted(scopes)
    if not chosen:
        raise errors.Rejected("no_scope", f"The token would have no scope; choose of {', '.join(Scope)}.")
    if expires_at is not None and expires_at <= now:
        raise errors.Rejected("bad_expiry", "The token would be expired already; a time in the future is accepted.")
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    token = AccessToken(lab_id=lab.id, name=name, secret_sha256=hash_secret(secret), scopes=chosen, created_at=now)
    token.expires_at = expires_at
    session.add(token)
    until = expires_at and expires_at.isoformat()
    events.add(session, "token issued", by=OPERATOR, lab_id=lab.id, at=now, name=name, scopes=chosen, expires_at=until)
    return secret


def list_all(session: Session, lab_id: int) -> list[AccessToken]:
    """Return the tokens of a lab, revoked and expired ones included, oldest first."""
    return list(session.scalars(sa.select(AccessToken).where(AccessToken.lab_id == lab_id).order_by(AccessToken.id)))


def revoke(session: Session, token_id: int, *, by: Principal = OPERATOR) -> AccessToken:
    """Revoke a token for ever, and end the sessions that were opened with it.

    A lab's principal revokes the tokens of its own lab alone. Raises NotFound.
    """
    token = session.get(AccessToken, token_id) if token_id < MOST_IDS else None
    if token is None or (isinstance(by, LabPrincipal) and token.lab_id != by.lab_id):
        raise errors.NotFound("no_token", f"There is no token {token_id}.")
    if token.revoked_at is None:
        token.revoked_at = datetime.now(UTC)
        events.add(session, "token revoked", by=by, lab_id=token.lab_id, at=token.revoked_at, name=token.name)
    session.execute(sa.delete(BrowserSession).where(BrowserSession.access_token_id == token_id))
    return token


def authenticate(session: Session, secret: str) -> AccessToken:
    """Return the token that has this secret, with its lab.

    Raises Unauthorized when it is unknown, revoked or expired, Forbidden when its lab is disabled.
    """
    if not _SHAPE.fullmatch(secret):
        raise _make_unknown()
    return check(_find(session, AccessToken.secret_sha256 == hash_secret(secret)))


def find_valid(session: Session, token_id: int) -> AccessToken:
    """Return the token with this id, with its lab. Raises as ``authenticate`` does."""
    return check(_find(session, AccessToken.id == token_id))


def check(token: AccessToken | None) -> AccessToken:
    """Return ``token`` if it may be used now. Raises as ``authenticate`` does."""
    if token is None or token.revoked_at is not None:
        raise _make_unknown()
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        raise errors.Unauthorized(
            "token_expired", "The access token has expired; the operator of this system issues a new one."
        )
    if token.lab.disabled_at is not None:
        raise errors.Forbidden(
            "lab_disabled",
            "The operator has disabled this lab. Its batches are kept and wait until it is enabled again.",
        )
    return token


def is_use_due(last_used_at: datetime | None) -> bool:
    """Return whether a use is to be written: the last one was written more than a minute ago, or never."""
    return last_used_at is None or last_used_at < datetime.now(UTC) - timedelta(seconds=USED_SECONDS)


def mark_used(session: Session, token_id: int) -> None:
    """Set the token's time of last use to now."""
    now = datetime.now(UTC)
    session.execute(sa.update(AccessToken).where(AccessToken.id == token_id).values(last_used_at=now))


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits, the form in which it is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _find(session: Session, which: sa.ColumnElement[bool]) -> AccessToken | None:
    return session.scalar(sa.select(AccessToken).options(joinedload(AccessToken.lab)).where(which))


def _make_unknown() -> errors.Unauthorized:
    return errors.Unauthorized("bad_token", "The access token is wrong or was revoked.")
