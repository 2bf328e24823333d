"""How gunicorn serves the web: ``gunicorn -c web/gunicorn_conf.py 'web.app:create_app()'``.

There is one process, because SQLite takes one writer at a time and the limit on uploads counts the threads of one
process. Threads are enough, because the web decodes nothing and mostly waits for disk and database.
"""

import logging

from dermq.settings import Settings
from web.server import worker
from web.server.limits import Limits

_settings = Settings()
logging.basicConfig(level=_settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("alembic").setLevel(logging.WARNING)  # each request for /health/ready would log two lines
if _settings.sql_echo:
    logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)

bind = f"{_settings.web_host}:{_settings.port}"
workers = 1
worker_class = worker.make_worker_class(Limits.of(_settings))
threads = _settings.web_threads
worker_connections = _settings.web_connections
keepalive = 1  # any value but 0; web.server has its own times
graceful_timeout = 5
"""Seconds that running requests have to end when the web is stopped. A client repeats an interrupted file."""
timeout = 120
"""Seconds without a heartbeat after which the process is restarted. It does not limit the time of a request."""
limit_request_line = 8190
"""Enough for a percent-encoded name that is too long, so that the API can answer what is wrong."""
# Nobody's headers change where a request seems to come from; web.http.addresses reads those of configured proxies.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
loglevel = _settings.log_level.lower()
control_socket_disable = True  # it would lie in the home folder, and nobody uses it
# No access log, because it would hold the sign-in codes of links.
accesslog = None
errorlog = "-"
