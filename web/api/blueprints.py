"""What all calls of the API share: their address, authentication, and the check of the caller's scope."""

from apiflask import APIBlueprint

from web.access import auth
from web.http import paths


def make(name: str, description: str) -> APIBlueprint:
    """Return a blueprint for calls of the API, which the OpenAPI document shows together under ``name``."""
    blueprint = APIBlueprint(
        name,
        __name__,
        url_prefix=paths.API,
        tag={"name": name.capitalize(), "description": description},
    )
    blueprint.before_request(auth.authenticate)
    blueprint.before_request(auth.authorize)
    return blueprint
