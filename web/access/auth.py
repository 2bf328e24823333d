"""Authentication and scopes: a request carries an access token, or a cookie of a browser that signed in with one.

The session cookie holds the id of an access token, so revoking the token ends its sessions. A browser also sends the
cookie with requests that other sites cause. Therefore every unsafe request with a cookie must carry a CSRF token: forms
in a field, calls of the API in the header ``X-CSRFToken``. Requests with an access token need none.
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
    """Find the principal that calls the API; runs before each request.

    Raises Unauthorized, or CSRFError when a session sends no CSRF token.
    """
    secret = _read_bearer()
    if secret is None:
        get_principal()
        _protect_call()
    else:
        token = db.read(services.get_current().sessions, access_tokens.authenticate, secret)
        _remember(token, f"token {token.name!r}")


def get_principal() -> LabPrincipal:
    """Return on whose behalf this request is made. Raises Unauthorized when nobody is signed in."""
    if "principal" not in g:
        token_id = session.get(_TOKEN_ID)
        if token_id is None:
            raise errors.Unauthorized(
                "no_token", "Nobody is signed in. Send an access token as `Authorization: Bearer …`, or sign in."
            )
        token = db.read(services.get_current().sessions, access_tokens.find_valid, token_id)
        _remember(token, _make_session_name(token))
    found: LabPrincipal = g.principal
    return found


def require(scope: Scope) -> Callable[[View], View]:
    """Declare the scope that a view needs; ``authorize`` checks it."""

    def mark(view: View) -> View:
        view.needed_scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def authorize() -> None:
    """Check the scope that ``require`` declared for the view of this request; runs before each request.

    This is the only place that checks scopes. Raises Forbidden when the principal lacks the scope, and Unauthorized
    when nobody is signed in. A view without a scope is for everybody.
    """
    scope = getattr(current_app.view_functions[str(request.endpoint)], "needed_scope", None)
    if scope is not None and scope not in get_principal().scopes:
        raise errors.Forbidden(
            "missing_scope", f"This call needs the scope {scope.value!r}, which the access token does not have."
        )


def list_scopes(token: AccessToken) -> frozenset[Scope]:
    """Return the scopes of a token: all, because tokens have no scopes of their own yet."""
    return ALL_SCOPES


def is_signed_in() -> bool:
    """Return whether this request comes from somebody with a valid token or session."""
    with contextlib.suppress(errors.Unauthorized):
        get_principal()
        return True
    return False


def sign_in(secret: str) -> None:
    """Sign in this browser with an access token. Raises Unauthorized."""
    _begin_session(db.read(services.get_current().sessions, access_tokens.authenticate, secret.strip()))


def sign_in_with_code(code: str) -> None:
    """Sign in this browser with a one-time code, which is not valid again. Raises Unauthorized."""
    _begin_session(db.transact(services.get_current().sessions, sign_in_codes.redeem, code))


def sign_out() -> None:
    """End this browser's session."""
    session.clear()
    g.pop("principal", None)


def protect_forms() -> None:
    """Check the CSRF token of every form, sign-in included; runs before each request. Raises CSRFError."""
    if not paths.is_for_programs():
        csrf.protect()


def _begin_session(token: AccessToken) -> None:
    sign_out()  # the new session must keep nothing of the old cookie
    session[_TOKEN_ID] = token.id
    session.permanent = True
    _remember(token, _make_session_name(token))


def _make_session_name(token: AccessToken) -> str:
    return f"session of token {token.name!r}"


def _remember(token: AccessToken, name: str) -> None:
    """Set the principal of this request, called ``name`` in the audit log, and note that its token was used."""
    g.principal = LabPrincipal(name, token.lab_id, token.lab.name, token.id, list_scopes(token))
    if access_tokens.is_use_due(token):
        # This may fail when the disk is full; the lab must be able to read its reports all the same.
        with contextlib.suppress(errors.Transient):
            db.transact(services.get_current().sessions, access_tokens.mark_used, token.id)


def _read_bearer() -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise errors.Unauthorized("bad_token", "The Authorization header must hold `Bearer` and an access token.")
    return secret.strip()


def _protect_call() -> None:
    # Flask-WTF's own check first looks for the token in the fields of a form, and would read a whole upload for that.
    if request.method in _SAFE_METHODS or not current_app.config["WTF_CSRF_ENABLED"]:
        return
    try:
        validate_csrf(request.headers.get(CSRF_HEADER))
    except ValidationError as err:
        raise CSRFError(f"{err} Calls with a session cookie must carry it in the header {CSRF_HEADER}.") from err
