"""Access tokens: secrets with which a lab's programs authenticate. Only the SHA-256 of a secret is stored."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import errors, events
from dermq.models import AccessToken, Lab
from dermq.principals import OPERATOR

PREFIX = "dermq_"
"""Every token begins with this, so that secret scanners find one that was published by mistake."""
_USED_SECONDS = 60
"""Least time between two writes of ``last_used_at``, so that not every request costs a transaction."""


def issue(session: Session, lab: Lab, name: str) -> str:
    """Issue an access token and return its secret, which cannot be read again later: only its hash is stored."""
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    session.add(AccessToken(lab_id=lab.id, name=name, secret_sha256=hash_secret(secret), created_at=now))
    events.add(session, "token issued", by=OPERATOR, lab_id=lab.id, at=now, name=name)
    return secret


def list_all(session: Session, lab: Lab) -> list[AccessToken]:
    """Return the tokens of a lab, revoked ones included, oldest first."""
    return list(session.scalars(sa.select(AccessToken).where(AccessToken.lab_id == lab.id).order_by(AccessToken.id)))


def revoke(session: Session, token_id: int) -> AccessToken:
    """Revoke a token for ever. Raises NotFound."""
    token = session.get(AccessToken, token_id)
    if token is None:
        raise errors.NotFound("no_token", f"There is no token {token_id}.")
    if token.revoked_at is None:
        token.revoked_at = datetime.now(UTC)
        events.add(session, "token revoked", by=OPERATOR, lab_id=token.lab_id, at=token.revoked_at, name=token.name)
    return token


def authenticate(session: Session, secret: str) -> AccessToken:
    """Return the token that has this secret, with its lab. Raises Unauthorized when it is unknown or revoked."""
    return _find_valid(session, AccessToken.secret_sha256 == hash_secret(secret))


def find_valid(session: Session, token_id: int) -> AccessToken:
    """Return the token with this id, with its lab. Raises Unauthorized when it is unknown or revoked."""
    return _find_valid(session, AccessToken.id == token_id)


def is_use_due(token: AccessToken) -> bool:
    """Return whether ``mark_used`` is due: it was last called more than a minute ago, or never."""
    limit = datetime.now(UTC) - timedelta(seconds=_USED_SECONDS)
    return token.last_used_at is None or token.last_used_at < limit


def mark_used(session: Session, token_id: int) -> None:
    """Set the token's time of last use to now."""
    now = datetime.now(UTC)
    session.execute(sa.update(AccessToken).where(AccessToken.id == token_id).values(last_used_at=now))


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits, the form in which it is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _find_valid(session: Session, which: sa.ColumnElement[bool]) -> AccessToken:
    valid = sa.select(AccessToken).options(joinedload(AccessToken.lab)).where(AccessToken.revoked_at.is_(None))
    token = session.scalar(valid.where(which))
    if token is None:
        raise errors.Unauthorized("bad_token", "The access token is wrong or was revoked.")
    return token
