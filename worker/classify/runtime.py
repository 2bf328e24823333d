"""What a process of the classify program holds: the shared services and its model."""

from dataclasses import dataclass, field

from dermq import batches, db
from dermq.settings import Settings
from dermq.wakeups import Queue
from worker.classify.model import Model, Models
from worker.process.heartbeat import Loaded
from worker.process.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class ClassifyRuntime(Runtime):
    """The shared services, the model that is loaded, and the row ids of bundles."""

    models: Models
    bundle_ids: dict[str, int] = field(default_factory=dict)
    """Row ids of bundles by SHA-256, as far as they were asked for."""

    def load(self) -> Loaded:
        """Load and verify the bundle that ships. Raises Unfit."""
        return loaded(self.models.load_current())

    def bundle_id(self, model: Model) -> int:
        """Return the row id of the bundle of ``model``; commits the row when it is the first to ask."""
        sha256 = model.bundle.sha256
        if sha256 not in self.bundle_ids:
            self.bundle_ids[sha256] = db.transact(
                self.sessions, lambda session: batches.bundle_row(session, model.bundle).id
            )
        return self.bundle_ids[sha256]


def build(settings: Settings) -> ClassifyRuntime:
    """Connect to everything; loads no model and claims nothing."""
    models = Models(settings.bundles_dir, settings.engine, step_images=settings.step_images)
    return ClassifyRuntime.connect(settings, Queue.CLASSIFY, models=models)


def loaded(model: Model) -> Loaded:
    """Return the names under which the worker's row shows a model."""
    return Loaded(model.bundle.name, model.engine.name)
