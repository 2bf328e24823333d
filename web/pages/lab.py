"""The page of the lab itself: its quotas, which browsers are signed in, and its access tokens."""

from datetime import UTC, datetime

from flask import render_template
from sqlalchemy.orm import Session

from dermq import access_tokens, browser_sessions, db, models
from dermq.principals import Scope
from web import services
from web.access import auth
from web.api import lab


@auth.require(Scope.READ)
def show_lab() -> str:
    """Show the lab's quotas, and its sessions and access tokens to those who may manage them."""
    here, by = services.get_current(), auth.get_principal()

    def work(session: Session) -> tuple[list[models.BrowserSession], list[models.AccessToken]]:
        signed_in = browser_sessions.list_all(session, by.lab_id, here.settings)
        return signed_in, access_tokens.list_all(session, by.lab_id)

    signed_in, tokens = db.read(here.sessions, work) if auth.may(Scope.MANAGE) else ([], [])
    now = datetime.now(UTC)
    return render_template(
        "lab.html",
        quotas=lab.read_quotas(),
        may_manage=auth.may(Scope.MANAGE),
        signed_in=signed_in,
        tokens=sorted(tokens, key=lambda token: not token.is_valid(now)),
        now=now,
        idle_hours=here.settings.session_idle_hours,
    )
