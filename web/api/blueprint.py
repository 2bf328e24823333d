"""What every part of the API has in common: its address, and that somebody is asking."""

from apiflask import APIBlueprint
from flask import Response

from web.access import auth
from web.http import paths


def blueprint(name: str, description: str) -> APIBlueprint:
    """A part of the API, called ``name`` in the code and in the document."""
    part = APIBlueprint(
        name,
        __name__,
        url_prefix=paths.API,
        tag={"name": name.capitalize(), "description": description},
    )
    part.before_request(auth.authenticate)
    part.after_request(_keep_private)
    return part


def _keep_private(response: Response) -> Response:
    """Let no cache hand one lab's answers to another, and let browsers ask again each time."""
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return response
