"""The addresses of all pages, and the links in the head of each page."""

from apiflask import APIBlueprint
from flask import Flask, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

from dermq import errors
from web.access import auth
from web.pages import about, batch, context, guide, home, lab, sign_in, wording

PAGES = (
    ("/", "home", home.show_home),
    ("/batches/<uuid:batch_id>", "batch", batch.show_batch),
    ("/diagnoses", "diagnoses", about.show_diagnoses),
    ("/bundle", "bundle", about.show_bundle),
    ("/guide", "guide", guide.show_guide),
    ("/lab", "lab", lab.show_lab),
    ("/sign-in", "sign_in", sign_in.sign_in),
)
"""The address of each page, its endpoint, and the function that shows it."""
_FORMS = (("/sign-in", sign_in.sign_in_with_token), ("/sign-out", sign_in.sign_out))
NAVIGATION = (
    ("pages.home", "Batches"),
    ("pages.diagnoses", "Diagnoses"),
    ("pages.bundle", "Model"),
    ("pages.guide", "API"),
)
"""Endpoints and the texts of their links."""


def register(app: Flask) -> None:
    """Add the pages to ``app``."""
    blueprint = APIBlueprint("pages", __name__, enable_openapi=False)
    blueprint.before_request(auth.authorize)
    blueprint.register_error_handler(errors.Unauthorized, _ask_to_sign_in)
    for address, endpoint, view in PAGES:
        blueprint.add_url_rule(address, endpoint, view, methods=["GET"])
    for address, view in _FORMS:
        blueprint.add_url_rule(address, view_func=view, methods=["POST"])
    wording.register(blueprint)
    blueprint.app_context_processor(lambda: {**context.build_context(), "navigation": NAVIGATION})
    app.register_blueprint(blueprint)


def _ask_to_sign_in(error: errors.Unauthorized) -> Redirect:
    return redirect(url_for("pages.sign_in", next=request.full_path.rstrip("?")))
