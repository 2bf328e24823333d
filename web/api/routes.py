"""Every call of the API, in the order in which the document shows them."""

from apiflask import APIFlask

from web.api import batches, creation, docs, documents, images, lab, reports, uploads


def register(app: APIFlask) -> None:
    """Add the API, its document and the page that shows it to ``app``."""
    documents.register(app)
    for module in (creation, batches, uploads, images, reports, lab):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(docs.blueprint)
