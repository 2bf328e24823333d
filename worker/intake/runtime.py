"""What a process of the intake program holds: the shared services and nothing more."""

from dermq.settings import Settings
from dermq.wakeups import Queue
from worker.process.runtime import Runtime


def build(settings: Settings) -> Runtime:
    """Connect to everything; claims nothing."""
    return Runtime.connect(settings, Queue.INTAKE)
