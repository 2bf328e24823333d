"""The page to sign in, and the forms to sign in and out."""

from typing import Any

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirect

from dermq import errors
from web.access import auth, signing_in
from web.errors import find_status, list_headers

_REFUSALS = (errors.Unauthorized, errors.TooMany, errors.Forbidden)


def sign_in() -> Any:
    """Show the form for an access token, or sign in with the one-time code of a link."""
    code = request.args.get("code")
    if code is None:
        return _show_form()
    try:
        signing_in.sign_in_with_code(code)
    except _REFUSALS as error:
        # The browser may have opened the link in advance, which used the code and signed the person in.
        if not auth.is_signed_in():
            return _show_form(error)
    return redirect(url_for("pages.home"))


def sign_in_with_token() -> Any:
    """Sign in with an access token."""
    try:
        signing_in.sign_in(request.form.get("token", ""))
    except _REFUSALS as error:
        return _show_form(error)
    return redirect(_check_address(request.form.get("next")))


def sign_out() -> Redirect:
    """End this browser's session, here and on the server."""
    signing_in.sign_out()
    return redirect(url_for("pages.sign_in"))


def _show_form(error: errors.Rejected | None = None) -> tuple[str, int, dict[str, str]]:
    wanted = request.values.get("next", "")
    page = render_template("sign_in.html", problem=error and error.detail, next=wanted)
    return (page, 200, {}) if error is None else (page, find_status(error), list_headers(error))


def _check_address(wanted: str | None) -> str:
    """Return ``wanted`` if it is an address of this site, else the first page."""
    # Browsers ignore tabs and line breaks, and read a backslash as a slash.
    plain = wanted is not None and wanted.isprintable() and not set(wanted) & set(" \\")
    if wanted is not None and plain and wanted.startswith("/") and not wanted.startswith("//"):
        return wanted
    return url_for("pages.home")
