"""The lab called "local", its access token in ``var/local-token`` and its sign-in link."""

import os
from pathlib import Path

from sqlalchemy.orm import Session

from dermq import access_tokens, db, errors, labs, sign_in_codes
from dermq.models import AccessToken
from dermq.settings import Settings
from embedded import instance

NAME = "local"


def ensure_token(settings: Settings, sessions: db.Sessions) -> None:
    """Create the local lab if it is missing, and write a new token when the file holds no valid one. Commits."""
    path = instance.find_token_path(settings)
    secret = path.read_text().strip() if path.is_file() else ""
    valid = db.transact(sessions, lambda session: _authenticate(session, secret))
    if valid is None:
        _write(path, db.transact(sessions, _issue))


def issue_sign_in_code(settings: Settings, sessions: db.Sessions) -> str:
    """Return a one-time code that signs a browser in as the local lab. Commits."""
    secret = instance.find_token_path(settings).read_text().strip()

    def work(session: Session) -> str:
        token = access_tokens.authenticate(session, secret)
        return sign_in_codes.issue(session, token)

    return db.transact(sessions, work)


def _authenticate(session: Session, secret: str) -> AccessToken | None:
    try:
        return access_tokens.authenticate(session, secret)
    except errors.Unauthorized:
        return None


def _issue(session: Session) -> str:
    lab = labs.find(session, NAME) or labs.add(session, NAME)
    return access_tokens.issue(session, lab, "make run")


def _write(path: Path, secret: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    fresh.replace(path)
