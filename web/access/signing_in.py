"""How a browser signs in and out. The cookie holds the secret of a session, which is worth nothing without its row."""

from collections.abc import Callable

from flask import request, session
from sqlalchemy.orm import Session

from dermq import access_tokens, browser_sessions, db, sign_in_codes
from dermq.browser_sessions import Visitor
from dermq.models import AccessToken
from web import services
from web.access import auth, guesses
from web.http import addresses


def sign_in(secret: str) -> None:
    """Sign in this browser with an access token.

    Raises Unauthorized for a wrong token, TooMany for one of many, and Forbidden when the lab is disabled.
    """
    with guesses.slow_down():
        token = db.read(services.get_current().sessions, access_tokens.authenticate, secret.strip())
    _begin(lambda _: token)


def sign_in_with_code(code: str) -> None:
    """Sign in this browser with a one-time code, which is not valid again. Raises as ``sign_in`` does."""
    with guesses.slow_down():
        db.read(services.get_current().sessions, sign_in_codes.check, code)
        _begin(lambda session: sign_in_codes.redeem(session, code))


def sign_out() -> None:
    """End this browser's session on the server, so that a copy of its cookie is of no use either."""
    if (secret := session.get(auth.SECRET)) is not None:
        db.transact(services.get_current().sessions, browser_sessions.sign_out, secret)
    auth.forget()


def _begin(find_token: Callable[[Session], AccessToken]) -> None:
    """Begin a session, and end the one that this browser had."""
    here, before = services.get_current(), session.get(auth.SECRET)
    visitor = Visitor(request.user_agent.string, addresses.find_client_address(request))

    def work(rows: Session) -> str:
        token = find_token(rows)
        if before is not None:
            browser_sessions.sign_out(rows, before)
        return browser_sessions.begin(rows, token, visitor, here.settings)

    secret = db.transact(here.sessions, work)
    auth.forget()  # the new session must keep nothing of the old cookie
    session[auth.SECRET] = secret
    session.permanent = True
