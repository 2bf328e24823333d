"""The runtime of an intake process: the shared services and nothing else."""

from dermq.settings import Settings
from dermq.wakeups import Queue
from worker.process.runtime import Runtime


def build(settings: Settings) -> Runtime:
    """Build the runtime of an intake process; claim nothing."""
    return Runtime.connect(settings, Queue.INTAKE)
