"""Labs, their access tokens and their one-time sign-in codes. Secrets are stored as SHA-256 only."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import errors, events
from dermq.models import AccessToken, Lab, SignInCode
from dermq.principals import OPERATOR

TOKEN_PREFIX = "dermq_"
"""Lets secret scanners find a token that leaked."""
SIGN_IN_MINUTES = 10
_USED_SECONDS = 60
"""``last_used_at`` is written at most this often."""


def add(session: Session, name: str, *, weight: float = 1.0, max_waiting_images: int | None = None) -> Lab:
    """Add a lab. Raises Rejected for a bad weight, Conflict when the name is taken."""
    if not weight > 0:
        raise errors.Rejected("bad_weight", f"The weight is {weight}; it must be greater than 0.")
    if find(session, name) is not None:
        raise errors.Conflict("lab_exists", f"A lab called {name!r} exists already.")
    lab = Lab(name=name, weight=weight, max_waiting_images=max_waiting_images, created_at=datetime.now(UTC))
    session.add(lab)
    session.flush()
    events.add(session, "lab added", by=OPERATOR, lab_id=lab.id, at=lab.created_at, name=name)
    return lab


def find(session: Session, name: str) -> Lab | None:
    """The lab called ``name``."""
    return session.scalar(sa.select(Lab).where(Lab.name == name))


def list_all(session: Session) -> list[Lab]:
    """Every lab, by name."""
    return list(session.scalars(sa.select(Lab).order_by(Lab.name)))


def issue_token(session: Session, lab: Lab, name: str) -> str:
    """Issue an access token and return its secret, which is shown once and kept nowhere."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    session.add(AccessToken(lab_id=lab.id, name=name, secret_sha256=_hash(secret), created_at=now))
    events.add(session, "token issued", by=OPERATOR, lab_id=lab.id, at=now, name=name)
    return secret


def tokens(session: Session, lab: Lab) -> list[AccessToken]:
    """The lab's tokens, oldest first."""
    return list(session.scalars(sa.select(AccessToken).where(AccessToken.lab_id == lab.id).order_by(AccessToken.id)))


def revoke_token(session: Session, token_id: int) -> AccessToken:
    """Revoke a token for ever. Raises NotFound."""
    token = session.get(AccessToken, token_id)
    if token is None:
        raise errors.NotFound("no_token", f"There is no token {token_id}.")
    if token.revoked_at is None:
        token.revoked_at = datetime.now(UTC)
        events.add(session, "token revoked", by=OPERATOR, lab_id=token.lab_id, at=token.revoked_at, name=token.name)
    return token


def authenticate(session: Session, secret: str) -> AccessToken:
    """The token, with its lab, that ``secret`` belongs to. Raises Unauthorized."""
    found = _valid_tokens().where(AccessToken.secret_sha256 == _hash(secret))
    return _authorized(session.scalar(found))


def session_token(session: Session, token_id: int) -> AccessToken:
    """The token that a signed-in browser stands on. Raises Unauthorized when it was revoked."""
    return _authorized(session.scalar(_valid_tokens().where(AccessToken.id == token_id)))


def is_due(token: AccessToken) -> bool:
    """Whether the token's last use should be written now."""
    limit = datetime.now(UTC) - timedelta(seconds=_USED_SECONDS)
    return token.last_used_at is None or token.last_used_at < limit


def mark_used(session: Session, token_id: int) -> None:
    """Write the token's last use."""
    now = datetime.now(UTC)
    session.execute(sa.update(AccessToken).where(AccessToken.id == token_id).values(last_used_at=now))


def issue_sign_in_code(session: Session, lab: Lab, token: AccessToken) -> str:
    """Issue a code that signs one browser in within ten minutes."""
    code = secrets.token_urlsafe(16)
    now = datetime.now(UTC)
    session.execute(sa.delete(SignInCode).where(SignInCode.expires_at < now))
    session.add(
        SignInCode(
            code_sha256=_hash(code),
            lab_id=lab.id,
            access_token_id=token.id,
            expires_at=now + timedelta(minutes=SIGN_IN_MINUTES),
        )
    )
    return code


def redeem_sign_in_code(session: Session, code: str) -> AccessToken:
    """Use a code up and return the token that it stands on. Raises Unauthorized."""
    used = session.execute(
        sa.delete(SignInCode)
        .where(SignInCode.code_sha256 == _hash(code), SignInCode.expires_at >= datetime.now(UTC))
        .returning(SignInCode.access_token_id)
    ).scalar_one_or_none()
    if used is None:
        raise errors.Unauthorized(
            "bad_code",
            f"This sign-in link was used already or is older than {SIGN_IN_MINUTES} minutes. "
            "Sign in with an access token instead.",
        )
    return session_token(session, used)


def _valid_tokens() -> sa.Select[AccessToken]:
    return sa.select(AccessToken).options(joinedload(AccessToken.lab)).where(AccessToken.revoked_at.is_(None))


def _authorized(token: AccessToken | None) -> AccessToken:
    if token is None:
        raise errors.Unauthorized("bad_token", "The access token is wrong or was revoked.")
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
