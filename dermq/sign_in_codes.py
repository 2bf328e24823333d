"""One-time codes that sign a browser in. Only the SHA-256 of a code is stored."""

import re
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import access_tokens, errors
from dermq.models import AccessToken, SignInCode

VALID_MINUTES = 10
_CODE_BYTES = 16
"""128 bits, so that guessing has no chance, however fast it is."""
_SHAPE = re.compile(r"[\w-]{22}", re.ASCII)


def issue(session: Session, token: AccessToken) -> str:
    """Issue a code that signs in one browser with ``token``, once and within ten minutes. Deletes expired codes."""
    code = secrets.token_urlsafe(_CODE_BYTES)
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


def check(session: Session, code: str) -> None:
    """Raise Unauthorized unless ``code`` can be redeemed. It only reads, so guesses cost no transaction that writes."""
    if (
        not _SHAPE.fullmatch(code)
        or session.scalar(sa.select(SignInCode.expires_at).where(*_match_valid(code))) is None
    ):
        raise _make_unknown()


def redeem(session: Session, code: str) -> AccessToken:
    """Delete a code and return the token for which it was issued.

    Raises Unauthorized when the code is unknown, used or expired, or when the token is not valid any more; Forbidden
    when its lab is disabled.
    """
    used = session.scalar(sa.delete(SignInCode).where(*_match_valid(code)).returning(SignInCode.access_token_id))
    if used is None:
        raise _make_unknown()
    return access_tokens.find_valid(session, used)


def _match_valid(code: str) -> tuple[sa.ColumnElement[bool], ...]:
    return SignInCode.code_sha256 == access_tokens.hash_secret(code), SignInCode.expires_at >= datetime.now(UTC)


def _make_unknown() -> errors.Unauthorized:
    return errors.Unauthorized(
        "bad_code",
        f"This sign-in link was used already or is older than {VALID_MINUTES} minutes. "
        "Sign in with an access token instead.",
    )
