"""Authentication and scopes: a request carries an access token, or a cookie of a browser that signed in with one.

The cookie holds the secret of a session, which is a row (``dermq.browser_sessions``). A browser also sends the
cookie with requests that other sites cause. Therefore every unsafe request with a cookie must carry a CSRF token: forms
in a field, calls of the API in the header ``X-CSRFToken``. Requests with an access token need none.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, g, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect, validate_csrf
from sqlalchemy.orm import Session
from wtforms import ValidationError

from dermq import access_tokens, browser_sessions, db, errors
from dermq.models import AccessToken
from dermq.principals import LabPrincipal, Scope
from dermq.quotas import Quotas
from web import services
from web.access import guesses
from web.http import bodies, paths

csrf = CSRFProtect()
CSRF_HEADER = "X-CSRFToken"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SECRET = "secret"
"""Name of the session's secret in the cookie."""
View = TypeVar("View", bound=Callable[..., Any])


def authenticate() -> None:
    """Find the principal that calls the API; runs before each request.

    Raises Unauthorized, TooMany for one of many wrong tokens, Forbidden when the lab is disabled, and CSRFError when a
    session sends no CSRF token.
    """
    secret = _read_bearer()
    if secret is None:
        get_principal()
        _protect_call()
    else:
        with guesses.slow_down():
            token = db.read(services.get_current().sessions, access_tokens.authenticate, secret)
        g.principal = _make_principal(f"token {token.name!r}", token)
        if access_tokens.is_use_due(token.last_used_at):
            _note_use(access_tokens.mark_used, token.id)


def get_principal() -> LabPrincipal:
    """Return on whose behalf this request is made.

    Raises Unauthorized when nobody is signed in, Forbidden when the lab is disabled, TooMany when it makes too many
    requests.
    """
    if "principal" not in g:
        if (secret := session.get(SECRET)) is None:
            raise errors.Unauthorized(
                "no_token", "Nobody is signed in. Send an access token as `Authorization: Bearer …`, or sign in."
            )
        here = services.get_current()
        row = db.read(here.sessions, browser_sessions.find, secret, here.settings)
        g.principal = _make_principal(f"session of token {row.token.name!r}", row.token, row.id)
        # Pages that refresh themselves send the ETag of what they show. A page that nobody looks at must not keep the
        # session from ending when idle.
        if access_tokens.is_use_due(row.last_used_at) and "If-None-Match" not in request.headers:
            _note_use(browser_sessions.mark_used, row.id)
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
    if scope is not None and not may(scope):
        raise errors.Forbidden(
            "missing_scope", f"This call needs the scope {scope.value!r}, which the access token does not have."
        )


def may(scope: Scope) -> bool:
    """Return whether the principal of this request has a scope. Raises as ``get_principal`` does."""
    return scope in get_principal().scopes


def list_scopes(token: AccessToken) -> frozenset[Scope]:
    """Return the scopes that were chosen when the token was issued."""
    return frozenset(map(Scope, token.scopes))


def is_signed_in() -> bool:
    """Return whether this request comes from somebody with a valid token or session."""
    with contextlib.suppress(errors.Unauthorized, errors.Forbidden):
        get_principal()
        return True
    return False


def forget() -> None:
    """Forget who sends this request, and empty the cookie."""
    session.clear()
    g.pop("principal", None)


def protect_forms() -> None:
    """Check the CSRF token of every form, sign-in included; runs before each request.

    Raises CSRFError, and RequestEntityTooLarge for a form that is larger than any of a page.
    """
    if not paths.is_for_programs():
        request.max_content_length = bodies.PAGE_FORM_BYTES
        csrf.protect()


def _make_principal(name: str, token: AccessToken, session_id: int | None = None) -> LabPrincipal:
    """Return the principal of a valid token or of its session, called ``name`` in the audit log.

    Counts the request, and raises TooMany when its lab makes too many.
    """
    here = services.get_current()
    most = Quotas.of(token.lab, here.settings).requests_per_minute
    if wait := here.requests.take(token.lab_id, most):
        raise errors.TooMany(
            "quota_requests",
            f"Your lab has made {most:,} requests within a minute, its quota; try again in {wait} s.",
            wait,
        )
    return LabPrincipal(name, token.lab_id, token.lab.name, token.id, list_scopes(token), session_id)


def _note_use(mark_used: Callable[[Session, int], None], row_id: int) -> None:
    # This may fail when the disk is full; the lab must be able to read its reports all the same.
    with contextlib.suppress(errors.Transient):
        db.transact(services.get_current().sessions, mark_used, row_id)


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
