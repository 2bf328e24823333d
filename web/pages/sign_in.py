"""The page to sign in, and the forms to sign in and out."""

from typing import Any

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirect

from dermq import errors
from web.access import auth


def sign_in() -> Any:
    """Show the form for an access token, or sign in with the one-time code of a link."""
    code = request.args.get("code")
    if code is None:
        return _show_form()
    try:
        auth.sign_in_with_code(code)
    except errors.Unauthorized as error:
        # The browser may have opened the link in advance, which used the code and signed the person in.
        if not auth.is_signed_in():
            return _show_form(error.detail)
    return redirect(url_for("pages.home"))


def sign_in_with_token() -> Any:
    """Sign in with an access token."""
    try:
        auth.sign_in(request.form.get("token", ""))
    except errors.Unauthorized as error:
        return _show_form(error.detail)
    return redirect(_check_address(request.form.get("next")))


def sign_out() -> Redirect:
    """End this browser's session."""
    auth.sign_out()
    return redirect(url_for("pages.sign_in"))


def _show_form(problem: str | None = None) -> tuple[str, int]:
    wanted = request.values.get("next", "")
    return render_template("sign_in.html", problem=problem, next=wanted), 401 if problem else 200


def _check_address(wanted: str | None) -> str:
    """Return ``wanted`` if it is an address of this site, else the first page."""
    # Browsers ignore tabs and line breaks, and read a backslash as a slash.
    plain = wanted is not None and wanted.isprintable() and not set(wanted) & set(" \\")
    if wanted is not None and plain and wanted.startswith("/") and not wanted.startswith("//"):
        return wanted
    return url_for("pages.home")
