"""The application factory. It only wires: what things do is said where they live."""

from datetime import timedelta
from pathlib import Path

from apiflask import APIFlask
from flask.json.provider import DefaultJSONProvider
from flask_bootstrap import Bootstrap5

from dermq.settings import Settings
from web import errors, services
from web.access import auth, keys
from web.api import routes as api
from web.http import headers
from web.operating import cli, health, metrics
from web.pages import routes as pages

_FORM_BYTES = 1_000_000
"""Most bytes of a form or a JSON body; uploads are streamed and have limits of their own."""


def create_app(settings: Settings | None = None, *, wakeups: services.Wakes | None = None) -> APIFlask:
    """Make the web application. ``wakeups`` may stand in for Redis."""
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
    app.config.update(_configuration(settings))
    if isinstance(app.json, DefaultJSONProvider):
        app.json.sort_keys = False  # people read answers in the order in which they are documented
    services.attach(app, services.build(settings, wakeups))
    auth.csrf.init_app(app)
    Bootstrap5(app)
    errors.register(app)
    headers.register(app)
    app.before_request(auth.protect_forms)
    cli.register(app)
    api.register(app)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    pages.register(app)
    return app


def _configuration(settings: Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": keys.session_key(settings.var_dir / "session-key"),
        "MAX_CONTENT_LENGTH": _FORM_BYTES,
        # Cookies know no ports: two clones side by side must not overwrite each other's.
        "SESSION_COOKIE_NAME": f"dermq-{settings.port}",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.secure_cookies,
        "SESSION_REFRESH_EACH_REQUEST": False,
        "PERMANENT_SESSION_LIFETIME": timedelta(days=settings.session_days),
        "WTF_CSRF_CHECK_DEFAULT": False,
        # The token lives as long as its session: a page may stay open overnight.
        "WTF_CSRF_TIME_LIMIT": None,
        "BOOTSTRAP_SERVE_LOCAL": True,
    }
