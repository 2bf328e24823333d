"""Who is asking: a bearer token, or a browser that signed in with one.

The session cookie holds the id of an access token, so revoking the token ends its sessions. A browser sends cookies
with requests that other sites made it send; therefore every unsafe request that stands on the cookie must carry a
CSRF token: forms in a field, calls of the API in the header ``X-CSRFToken``. Bearer tokens need none.
"""

import contextlib

from flask import current_app, g, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect, validate_csrf
from wtforms import ValidationError

from dermq import db, errors, labs
from dermq.models import AccessToken, Lab
from dermq.principals import Principal
from web import services
from web.http import paths

csrf = CSRFProtect()
CSRF_HEADER = "X-CSRFToken"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TOKEN_ID = "token_id"


def authenticate() -> None:
    """Find out who calls the API; for use before a request. Raises Unauthorized."""
    secret = _bearer()
    if secret is not None:
        g.access_token = db.read(services.current().sessions, labs.authenticate, secret)
    else:
        current_token()
        _protect_call()
    _note_use(g.access_token)


def current_token() -> AccessToken:
    """The token, with its lab, that this request stands on. Raises Unauthorized when nobody is signed in."""
    if "access_token" not in g:
        token_id = session.get(_TOKEN_ID)
        if token_id is None:
            raise errors.Unauthorized(
                "no_token", "Nobody is signed in. Send an access token as `Authorization: Bearer …`, or sign in."
            )
        g.access_token = db.read(services.current().sessions, labs.session_token, token_id)
        _note_use(g.access_token)
    token: AccessToken = g.access_token
    return token


def current_lab() -> Lab:
    """The lab that is asking. Raises Unauthorized when nobody is signed in."""
    return current_token().lab


def principal() -> Principal:
    """On whose behalf this request acts. Raises Unauthorized when nobody is signed in."""
    token = current_token()
    name = f"token {token.name!r}" if _bearer() is not None else f"session of token {token.name!r}"
    return Principal(name, token.lab_id, token.id)


def is_signed_in() -> bool:
    """Whether this request comes from somebody with a valid token or session."""
    with contextlib.suppress(errors.Unauthorized):
        current_token()
        return True
    return False


def sign_in(secret: str) -> Lab:
    """Sign this browser in with an access token. Raises Unauthorized."""
    return _begin_session(db.read(services.current().sessions, labs.authenticate, secret.strip()))


def sign_in_with_code(code: str) -> Lab:
    """Sign this browser in with a one-time code, which is used up. Raises Unauthorized."""
    return _begin_session(db.transact(services.current().sessions, labs.redeem_sign_in_code, code))


def sign_out() -> None:
    """End this browser's session."""
    session.clear()
    g.pop("access_token", None)


def protect_forms() -> None:
    """Check the CSRF token of every form, sign-in included; for use before a request. Raises CSRFError."""
    if not paths.for_programs():
        csrf.protect()


def _begin_session(token: AccessToken) -> Lab:
    sign_out()  # nothing that was in the cookie before may live on in the new session
    session[_TOKEN_ID] = token.id
    session.permanent = True
    g.access_token = token
    _note_use(token)
    return token.lab


def _bearer() -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise errors.Unauthorized("bad_token", "The Authorization header must read `Bearer` and an access token.")
    return secret.strip()


def _protect_call() -> None:
    # Flask-WTF's own check looks for the token among the form's fields first, which would read a whole upload.
    if request.method in _SAFE_METHODS or not current_app.config["WTF_CSRF_ENABLED"]:
        return
    try:
        validate_csrf(request.headers.get(CSRF_HEADER))
    except ValidationError as err:
        raise CSRFError(f"{err} Calls that stand on a session cookie carry it in the header {CSRF_HEADER}.") from err


def _note_use(token: AccessToken) -> None:
    if labs.is_due(token):
        # A full disk must not keep a lab from reading its reports.
        with contextlib.suppress(errors.Transient):
            db.transact(services.current().sessions, labs.mark_used, token.id)
