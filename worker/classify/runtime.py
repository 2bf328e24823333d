"""The runtime of a classify process: the shared services and the loaded model."""

from dataclasses import dataclass, field

from dermq import batches, db
from dermq.settings import Settings
from dermq.wakeups import Queue
from worker.classify.model import Model, Models
from worker.decoders.pool import Decoders
from worker.process.heartbeat import Loaded
from worker.process.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class ClassifyRuntime(Runtime):
    """The shared services, the loaded model, the decoders, and the row ids of bundles."""

    models: Models
    decoders: Decoders
    bundle_ids: dict[str, int] = field(default_factory=dict)
    """A cache of the bundles' row ids, keyed by the bundle's SHA-256."""

    def close(self) -> None:
        """Kill the decoders, delete the worker's row and close the connections. Commits."""
        self.decoders.close()
        super().close()

    def load(self) -> Loaded:
        """Load and verify the current bundle. Raises Unfit."""
        return describe_loaded(self.models.load_current())

    def find_bundle_id(self, model: Model) -> int:
        """Return the row id of the bundle of ``model``. Inserts the row and commits when the bundle has none."""
        sha256 = model.bundle.sha256
        if sha256 not in self.bundle_ids:
            self.bundle_ids[sha256] = db.transact(
                self.sessions, lambda session: batches.ensure_bundle_row(session, model.bundle).id
            )
        return self.bundle_ids[sha256]


def build(settings: Settings) -> ClassifyRuntime:
    """Build the runtime of a classify process; load no model and claim nothing."""
    models = Models(settings.bundles_dir, settings.engine, step_images=settings.step_images)
    return ClassifyRuntime.connect(settings, Queue.CLASSIFY, models=models, decoders=Decoders(settings))


def describe_loaded(model: Model) -> Loaded:
    """Return the bundle's and the engine's name, as the worker's row shows them."""
    return Loaded(model.bundle.name, model.engine.name)
