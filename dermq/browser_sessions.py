"""Sessions of browsers that signed in: rows that end by sign-out, by hand, when idle, and at a fixed time.

A session stands on the access token that was used to sign in: it has the scopes of this token, and ends with it.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dermq import access_tokens, errors, events
from dermq.models import MOST_IDS, NAME_LENGTH, AccessToken, BrowserSession
from dermq.principals import OPERATOR, LabPrincipal, Principal
from dermq.settings import Settings

MOST_OF_A_TOKEN = 100
"""Sessions that one token may have at one time; a further sign-in ends the one that was not used for longest."""


@dataclass(frozen=True)
class Visitor:
    """What is noted of a browser, so that people recognise it in the list of sessions."""

    browser: str
    address: str


def begin(session: Session, token: AccessToken, visitor: Visitor, settings: Settings) -> str:
    """Begin a session and return the secret for its cookie. Deletes sessions that have ended by themselves."""
    secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
    session.execute(sa.delete(BrowserSession).where(~_lasts(settings)))
    ends_at = now + timedelta(days=settings.session_days)
    session.add(
        BrowserSession(
            secret_sha256=access_tokens.hash_secret(secret),
            lab_id=token.lab_id,
            access_token_id=token.id,
            browser=visitor.browser[:NAME_LENGTH],
            address=visitor.address[:64],
            created_at=now,
            last_used_at=now,
            ends_at=min(ends_at, token.expires_at or ends_at),
        )
    )
    session.flush()
    _end_oldest(session, token.id)
    access_tokens.mark_used(session, token.id)
    events.add(session, "signed in", by=Principal(f"token {token.name!r}"), lab_id=token.lab_id, at=now)
    return secret


def find(session: Session, secret: str, settings: Settings) -> BrowserSession:
    """Return the session that has this secret, with its token and lab.

    Raises Unauthorized when it has ended or its token is not valid any more, Forbidden when its lab is disabled.
    """
    found = session.scalar(
        sa.select(BrowserSession)
        .options(joinedload(BrowserSession.token).joinedload(AccessToken.lab))
        .where(BrowserSession.secret_sha256 == access_tokens.hash_secret(secret), _lasts(settings))
    )
    if found is None:
        raise errors.Unauthorized("session_ended", "This session has ended; sign in again.")
    access_tokens.check(found.token)
    return found


def mark_used(session: Session, session_id: int) -> None:
    """Set the time of last use to now, of the session and of its token. Does nothing when the session has ended."""
    now = datetime.now(UTC)
    mine = sa.update(BrowserSession).where(BrowserSession.id == session_id).values(last_used_at=now)
    token_id = session.scalar(mine.returning(BrowserSession.access_token_id))
    if token_id is not None:
        access_tokens.mark_used(session, token_id)


def list_all(session: Session, lab_id: int, settings: Settings) -> list[BrowserSession]:
    """Return the sessions of a lab that have not ended, with their tokens, last used first."""
    wanted = (
        sa.select(BrowserSession)
        .options(joinedload(BrowserSession.token))
        .where(BrowserSession.lab_id == lab_id, _lasts(settings))
        .order_by(BrowserSession.last_used_at.desc(), BrowserSession.id.desc())
    )
    return list(session.scalars(wanted))


def sign_out(session: Session, secret: str) -> None:
    """End the session that has this secret. Idempotent."""
    session.execute(sa.delete(BrowserSession).where(BrowserSession.secret_sha256 == access_tokens.hash_secret(secret)))


def end(session: Session, session_id: int, *, by: Principal = OPERATOR) -> None:
    """End one session; a lab's principal ends those of its own lab alone. Raises NotFound."""
    if session_id >= MOST_IDS or not _end(session, BrowserSession.id == session_id, by=by):
        raise errors.NotFound("no_session", f"There is no session {session_id}.")


def end_all(session: Session, lab_id: int, *, by: Principal = OPERATOR) -> int:
    """End every session of a lab but the one that asks, and return how many."""
    others = BrowserSession.id != (by.session_id if isinstance(by, LabPrincipal) and by.session_id else 0)
    return _end(session, BrowserSession.lab_id == lab_id, others, by=by)


def _end_oldest(session: Session, token_id: int) -> None:
    """End the sessions of a token that were not used for longest, so that it has at most ``MOST_OF_A_TOKEN``."""
    latest = (
        sa.select(BrowserSession.id)
        .where(BrowserSession.access_token_id == token_id)
        .order_by(BrowserSession.last_used_at.desc(), BrowserSession.id.desc())
        .limit(MOST_OF_A_TOKEN)
    )
    others = BrowserSession.id.not_in(latest.scalar_subquery())
    session.execute(sa.delete(BrowserSession).where(BrowserSession.access_token_id == token_id, others))


def _end(session: Session, *where: sa.ColumnElement[bool], by: Principal) -> int:
    mine = [BrowserSession.lab_id == by.lab_id] if isinstance(by, LabPrincipal) else []
    ended = sa.delete(BrowserSession).where(*where, *mine).returning(BrowserSession.lab_id)
    labs = session.scalars(ended).all()
    for lab_id in set(labs):
        events.add(session, "sessions ended", by=by, lab_id=lab_id, sessions=labs.count(lab_id))
    return len(labs)


def _lasts(settings: Settings) -> sa.ColumnElement[bool]:
    """Return the condition that a session has neither reached its end nor been idle for too long."""
    now = datetime.now(UTC)
    idle = now - timedelta(hours=settings.session_idle_hours)
    return (BrowserSession.ends_at > now) & (BrowserSession.last_used_at > idle)
