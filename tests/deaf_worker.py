"""``python -m tests.deaf_worker classify``: a worker that consumes no messages, as after a failure of the broker."""

import sys
from typing import Any

from celery import signals

from worker import __main__


@signals.worker_ready.connect
def _deafen(sender: Any, **_: Any) -> None:
    for queue in list(sender.app.amqp.queues.consume_from):
        sender.cancel_task_queue(queue)


if __name__ == "__main__":
    sys.exit(__main__.main())
