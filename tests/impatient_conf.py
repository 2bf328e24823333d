"""gunicorn's configuration with short times, for tests: ``gunicorn -c tests/impatient_conf.py``."""

from dataclasses import replace

from dermq.settings import Settings
from web.gunicorn_conf import *  # noqa: F403
from web.server import worker
from web.server.limits import Limits

worker_class = worker.make_worker_class(
    replace(
        Limits.of(Settings()),
        idle_seconds=2.0,
        head_seconds=1.0,
        body_seconds=1.0,
        linger_seconds=1.0,
        body_bytes=100_000,
        memory_bytes=2_000_000,
    )
)
