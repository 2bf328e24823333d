"""The application factory, which connects the parts of the web. What each part does stands in its own module."""

from datetime import timedelta
from pathlib import Path

from apiflask import APIFlask
from flask.json.provider import DefaultJSONProvider
from flask_bootstrap import Bootstrap5

from dermq.settings import Settings
from web import errors, services
from web.access import auth, keys
from web.api import routes as api
from web.http import addresses, bodies, headers
from web.operating import cli, health, metrics
from web.pages import routes as pages


def create_app(settings: Settings | None = None, *, wakeups: services.Wakes | None = None) -> APIFlask:
    """Return the web application. Tests give ``wakeups`` that need no Redis."""
    settings = settings or Settings()
    app = APIFlask(
        "web",
        title="dermq",
        version="1",
        spec_path="/api/v1/openapi.json",
        docs_path=None,
        json_errors=False,
        root_path=str(Path(__file__).parent),
    )
    app.config.update(_make_configuration(settings))
    if isinstance(app.json, DefaultJSONProvider):
        app.json.sort_keys = False  # so that answers have the order of the documentation
    services.attach(app, services.build(settings, wakeups))
    auth.csrf.init_app(app)
    Bootstrap5(app)
    errors.register(app)
    headers.register(app)
    addresses.register(app, settings)
    app.before_request(auth.protect_forms)
    cli.register(app)
    api.register(app)
    app.register_blueprint(health.blueprint)
    metrics.register(app, settings)
    pages.register(app)
    return app


def _make_configuration(settings: Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": keys.read_session_key(settings.var_dir / "session-key"),
        "MAX_CONTENT_LENGTH": bodies.FORM_BYTES,
        # A cookie is sent to all ports of a host, so two installations on one host need different names.
        "SESSION_COOKIE_NAME": f"dermq-{settings.port}",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.secure_cookies,
        "SESSION_REFRESH_EACH_REQUEST": False,
        "PERMANENT_SESSION_LIFETIME": timedelta(days=settings.session_days),
        "WTF_CSRF_CHECK_DEFAULT": False,
        # The CSRF token is valid as long as its session, because a page may stay open overnight.
        "WTF_CSRF_TIME_LIMIT": None,
        "BOOTSTRAP_SERVE_LOCAL": True,
    }
