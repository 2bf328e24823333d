"""Access tokens: the secrets by which the programs of a lab are known. Only the SHA-256 of a secret is stored."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import errors, events
from dermq.models import AccessToken, Lab
from dermq.principals import OPERATOR

PREFIX = "dermq_"
"""Lets secret scanners find a token that leaked."""
_USED_SECONDS = 60
"""``last_used_at`` is written at most this often."""


def issue(session: Session, lab: Lab, name: str) -> str:
    """Issue an access token and return its secret, which is shown once and stored nowhere."""
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
    """Return the valid token, loaded with its lab, that ``secret`` belongs to. Raises Unauthorized."""
    return _find_valid(session, AccessToken.secret_sha256 == hash_secret(secret))


def find_valid(session: Session, token_id: int) -> AccessToken:
    """Return a token, loaded with its lab. Raises Unauthorized when it was revoked."""
    return _find_valid(session, AccessToken.id == token_id)


def is_use_due(token: AccessToken) -> bool:
    """Return whether the token's last use should be written now."""
    limit = datetime.now(UTC) - timedelta(seconds=_USED_SECONDS)
    return token.last_used_at is None or token.last_used_at < limit


def mark_used(session: Session, token_id: int) -> None:
    """Write that the token is used now."""
    now = datetime.now(UTC)
    session.execute(sa.update(AccessToken).where(AccessToken.id == token_id).values(last_used_at=now))


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _find_valid(session: Session, which: sa.ColumnElement[bool]) -> AccessToken:
    valid = sa.select(AccessToken).options(joinedload(AccessToken.lab)).where(AccessToken.revoked_at.is_(None))
    token = session.scalar(valid.where(which))
    if token is None:
        raise errors.Unauthorized("bad_token", "The access token is wrong or was revoked.")
    return token
