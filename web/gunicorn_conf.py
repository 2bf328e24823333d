"""How gunicorn serves the web: ``gunicorn -c web/gunicorn_conf.py 'web.app:create_app()'``.

One process: SQLite takes one writer at a time, and the limit on bodies counts threads of one process. Threads are
enough, since the web waits for disk and database and decodes nothing.
"""

import logging

from dermq.settings import Settings

_settings = Settings()
logging.basicConfig(level=_settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("alembic").setLevel(logging.WARNING)  # it would write two lines for each question of readiness
if _settings.sql_echo:
    logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)

bind = f"{_settings.web_host}:{_settings.port}"
workers = 1
worker_class = "gthread"
threads = _settings.web_threads
keepalive = 15
graceful_timeout = 5
"""Seconds for requests under way when it is told to stop; uploads resume file by file."""
timeout = 120
"""Seconds without a sign of life from the process, not the length of a request."""
limit_request_line = 8190
"""Room for a name that is too long, percent-encoded: it deserves an answer of ours."""
loglevel = _settings.log_level.lower()
# An access log would hold sign-in codes, which stand in a link.
accesslog = None
errorlog = "-"
