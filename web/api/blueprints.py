"""What all calls of the API have in common: their address, that somebody is asking,
and that the scope of the caller allows it."""

from apiflask import APIBlueprint
from flask import Response

from web.access import auth
from web.http import paths


def make(name: str, description: str) -> APIBlueprint:
    """Make the blueprint for some calls of the API. The document shows them together under ``name``."""
    blueprint = APIBlueprint(
        name,
        __name__,
        url_prefix=paths.API,
        tag={"name": name.capitalize(), "description": description},
    )
    blueprint.before_request(auth.authenticate)
    blueprint.before_request(auth.authorize)
    blueprint.after_request(_keep_private)
    return blueprint


def _keep_private(response: Response) -> Response:
    """Let no cache hand one lab's answers to another, and let browsers ask again each time."""
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return response
