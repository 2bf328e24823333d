"""Signing in and out."""

from typing import Any

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirect

from dermq import errors
from web.access import auth


def sign_in() -> Any:
    """Ask for an access token, or sign in at once with the one-time code of a link."""
    code = request.args.get("code")
    if code is None:
        return _form()
    try:
        auth.sign_in_with_code(code)
    except errors.Unauthorized as error:
        # A browser may fetch a link before its reader opens it, which uses the code up.
        if not auth.is_signed_in():
            return _form(error.detail)
    return redirect(url_for("pages.home"))


def sign_in_with_token() -> Any:
    """Sign in with an access token."""
    try:
        auth.sign_in(request.form.get("token", ""))
    except errors.Unauthorized as error:
        return _form(error.detail)
    return redirect(_own_address(request.form.get("next")))


def sign_out() -> Redirect:
    """End this browser's session."""
    auth.sign_out()
    return redirect(url_for("pages.sign_in"))


def _form(problem: str | None = None) -> tuple[str, int]:
    wanted = request.values.get("next", "")
    return render_template("sign_in.html", problem=problem, next=wanted), 401 if problem else 200


def _own_address(wanted: str | None) -> str:
    """Where to go after signing in: an address of ours, never of another site."""
    # Browsers drop tabs and line breaks, and take a backslash for a slash.
    plain = wanted is not None and wanted.isprintable() and not set(wanted) & set(" \\")
    if wanted is not None and plain and wanted.startswith("/") and not wanted.startswith("//"):
        return wanted
    return url_for("pages.home")
