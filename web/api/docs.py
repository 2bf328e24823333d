"""A page that shows the API with Swagger UI, from its installed package and not from another host."""

from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, render_template, send_from_directory

from dermq import taxonomy

blueprint = Blueprint("api_docs", __name__, url_prefix="/api/docs", template_folder="templates", static_folder="static")
_SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
# Swagger UI sets style attributes, so inline styles are allowed here; inline scripts are not.
_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@blueprint.get("")
def show_index() -> Response:
    """Show the API, call by call."""
    response = Response(render_template("api_docs.html", notice=taxonomy.NOTICE))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    return response


@blueprint.get("/swagger-ui/<path:name>")
def send_asset(name: str) -> Response:
    """Return a file of Swagger UI."""
    return send_from_directory(_SWAGGER_UI, name)
