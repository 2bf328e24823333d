"""Celery as dermq uses it. Every setting avoids a failure that was seen; docs/adr/0007 tells which."""

from celery import Celery

from dermq import wakeups
from dermq.settings import Settings
from dermq.wakeups import Queue

START_SECONDS = 300.0
"""Time a pool process has to load its model; with Celery's 4 s it would be killed for ever after its first crash."""
_BACKSTOP_SECONDS = 600
"""A task that runs this much longer than a drain may is stuck in native code and is killed."""


def create(settings: Settings) -> Celery:
    """The application of one worker."""
    app = Celery("dermq", broker=wakeups.broker_url(settings.redis_url), include=["worker.tasks"])
    app.conf.update(
        # fork breaks CUDA, TensorFlow and every thread that a library started.
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=START_SECONDS,
        worker_concurrency=1,
        # A wake-up may be lost, never redelivered: SQL knows the work. A busy worker hides no message of an idle one.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        # No soft limit: it raises between any two lines.
        task_time_limit=settings.drain_seconds + _BACKSTOP_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 5, "health_check_interval": 10},
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    for name in Queue:
        app.amqp.queues.add(name.value)
    return app
