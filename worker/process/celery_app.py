"""The Celery application. Every setting prevents a failure that was observed; docs/adr/0007 lists them."""

from celery import Celery

from dermq import wakeups
from dermq.settings import Settings
from dermq.wakeups import Queue

START_SECONDS = 300.0
"""The time in which a pool process must load its model. After a crash, Celery's 4 s would kill each new process."""
_BACKSTOP_SECONDS = 600
"""A task that exceeds the time limit of a drain by this much hangs in native code and is killed."""


def create(settings: Settings) -> Celery:
    """Return the Celery application of one worker."""
    app = Celery("dermq", broker=wakeups.make_broker_url(settings.redis_url), include=["worker.tasks"])
    app.conf.update(
        # fork breaks CUDA, TensorFlow and every thread that a library started.
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=START_SECONDS,
        worker_concurrency=1,
        # A wake-up may be lost but is never delivered twice, since the work is in SQL. A busy worker reserves no
        # message that an idle worker could take.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        # There is no soft time limit, because its exception can be raised between any two lines.
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
