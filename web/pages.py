"""The pages."""

from flask import Blueprint, render_template_string

from dermq import taxonomy

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def index() -> str:
    """Say what this is."""
    return render_template_string("<!doctype html><title>dermq</title><p>{{ notice }}", notice=taxonomy.NOTICE)
