"""One-time codes that sign a browser in. Only the SHA-256 of a code is stored."""

import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import access_tokens, errors
from dermq.models import AccessToken, SignInCode

VALID_MINUTES = 10


def issue(session: Session, token: AccessToken) -> str:
    """Issue a code that signs one browser in with ``token`` within ten minutes."""
    code = secrets.token_urlsafe(16)
    now = datetime.now(UTC)
    session.execute(sa.delete(SignInCode).where(SignInCode.expires_at < now))
    session.add(
        SignInCode(
            code_sha256=access_tokens.hash_secret(code),
            lab_id=token.lab_id,
            access_token_id=token.id,
            expires_at=now + timedelta(minutes=VALID_MINUTES),
        )
    )
    return code


def redeem(session: Session, code: str) -> AccessToken:
    """Use a code up and return the token that it was issued for. Raises Unauthorized."""
    used = session.execute(
        sa.delete(SignInCode)
        .where(SignInCode.code_sha256 == access_tokens.hash_secret(code), SignInCode.expires_at >= datetime.now(UTC))
        .returning(SignInCode.access_token_id)
    ).scalar_one_or_none()
    if used is None:
        raise errors.Unauthorized(
            "bad_code",
            f"This sign-in link was used already or is older than {VALID_MINUTES} minutes. "
            "Sign in with an access token instead.",
        )
    return access_tokens.find_valid(session, used)
