"""All parts of the API, in the order in which the document shows them."""

from apiflask import APIFlask

from web.api import batches, creation, docs, documents, images, reports, uploads
from web.operating import health


def register(app: APIFlask) -> None:
    """Add the API, its document and its page to ``app``."""
    documents.register(app)
    for module in (creation, batches, uploads, images, reports):
        app.register_blueprint(module.part)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(docs.blueprint)
