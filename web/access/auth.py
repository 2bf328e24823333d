"""Who is asking and what they may do: a bearer token, or a browser that signed in with one.

The session cookie holds the id of an access token, so revoking the token ends its sessions. A browser sends cookies
with requests that other sites made it send; therefore every unsafe request that stands on the cookie must carry a
CSRF token: forms in a field, calls of the API in the header ``X-CSRFToken``. Bearer tokens need none.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, g, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect, validate_csrf
from wtforms import ValidationError

from dermq import access_tokens, db, errors, sign_in_codes
from dermq.models import AccessToken
from dermq.principals import ALL_SCOPES, LabPrincipal, Scope
from web import services
from web.http import paths

csrf = CSRFProtect()
CSRF_HEADER = "X-CSRFToken"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TOKEN_ID = "token_id"
View = TypeVar("View", bound=Callable[..., Any])


def authenticate() -> None:
    """Find out who calls the API; for use before a request. Raises Unauthorized, and CSRFError for a session."""
    secret = _bearer()
    if secret is None:
        principal()
        _protect_call()
    else:
        token = db.read(services.current().sessions, access_tokens.authenticate, secret)
        _remember(token, f"token {token.name!r}")


def principal() -> LabPrincipal:
    """On whose behalf this request is made. Raises Unauthorized when nobody is signed in."""
    if "principal" not in g:
        token_id = session.get(_TOKEN_ID)
        if token_id is None:
            raise errors.Unauthorized(
                "no_token", "Nobody is signed in. Send an access token as `Authorization: Bearer …`, or sign in."
            )
        token = db.read(services.current().sessions, access_tokens.find_valid, token_id)
        _remember(token, _session_name(token))
    found: LabPrincipal = g.principal
    return found


def needs(scope: Scope) -> Callable[[View], View]:
    """Name the scope that a view needs; ``authorize`` checks it."""

    def mark(view: View) -> View:
        view.needed_scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def authorize() -> None:
    """Check the scope that the view of this request names; for use before a request, the only place that looks.

    Raises Forbidden when the principal lacks it, and Unauthorized when nobody is signed in. A view that names no scope
    is for everybody.
    """
    scope = getattr(current_app.view_functions[str(request.endpoint)], "needed_scope", None)
    if scope is not None and scope not in principal().scopes:
        raise errors.Forbidden(
            "missing_scope", f"This call needs the scope {scope.value!r}, which the access token does not have."
        )


def scopes_of(token: AccessToken) -> frozenset[Scope]:
    """What a token allows: everything, as tokens have no scopes of their own yet."""
    return ALL_SCOPES


def is_signed_in() -> bool:
    """Return whether this request comes from somebody with a valid token or session."""
    with contextlib.suppress(errors.Unauthorized):
        principal()
        return True
    return False


def sign_in(secret: str) -> None:
    """Sign this browser in with an access token. Raises Unauthorized."""
    _begin_session(db.read(services.current().sessions, access_tokens.authenticate, secret.strip()))


def sign_in_with_code(code: str) -> None:
    """Sign this browser in with a one-time code, which is used up. Raises Unauthorized."""
    _begin_session(db.transact(services.current().sessions, sign_in_codes.redeem, code))


def sign_out() -> None:
    """End this browser's session."""
    session.clear()
    g.pop("principal", None)


def protect_forms() -> None:
    """Check the CSRF token of every form, sign-in included; for use before a request. Raises CSRFError."""
    if not paths.for_programs():
        csrf.protect()


def _begin_session(token: AccessToken) -> None:
    sign_out()  # nothing that was in the cookie before may live on in the new session
    session[_TOKEN_ID] = token.id
    session.permanent = True
    _remember(token, _session_name(token))


def _session_name(token: AccessToken) -> str:
    return f"session of token {token.name!r}"


def _remember(token: AccessToken, name: str) -> None:
    """Make the token's principal, called ``name`` in the audit, that of this request; note that it is used."""
    g.principal = LabPrincipal(name, token.lab_id, token.lab.name, token.id, scopes_of(token))
    if access_tokens.is_use_due(token):
        # A full disk must not keep a lab from reading its reports.
        with contextlib.suppress(errors.Transient):
            db.transact(services.current().sessions, access_tokens.mark_used, token.id)


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
