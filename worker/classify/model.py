"""The model that a classify process holds: loaded from a bundle and verified with its golden inputs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dermq import bundles, errors
from dermq.bundles import Bundle
from worker.classify import engines
from worker.classify.engines import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A verified bundle and the engine that has loaded it."""

    bundle: Bundle
    engine: Engine


def load(bundle: Bundle, engine: Engine) -> Model:
    """Load a bundle and verify it. Raises Unfit when a file or an output differs from the card or golden outputs."""
    bundles.verify_files(bundle, engine.files)
    engine.load(bundle)
    verify(bundle, engine)
    log.info("bundle %s version %s verified on engine %s", bundle.name, bundle.version, engine.name)
    return Model(bundle, engine)


def verify(bundle: Bundle, engine: Engine) -> None:
    """Predict the golden inputs. Raises Unfit unless every diagnosis is the same and both outputs are close.

    A saved EfficientNet can load with wrong weights and without any error, so every load is verified.
    """
    with np.load(bundle.path / bundles.GOLDEN) as golden:
        pixels, expected, strange = golden["pixels"], golden["probabilities"], golden["ood_score"]
    outputs = engine.predict(pixels)
    found, scores = outputs.probabilities, outputs.ood_scores
    if found.shape != expected.shape or not np.isfinite(found).all() or not np.isfinite(scores).all():
        raise errors.Unfit("bad_bundle", f"The golden inputs of {bundle.path} give shape {found.shape} or NaN.")
    apart = float(np.abs(found - expected).max())
    scores_apart = float((np.abs(scores - strange) / np.maximum(1, np.abs(strange))).max())
    if max(apart, scores_apart) > engine.tolerance or (found.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise errors.Unfit(
            "bad_bundle",
            f"The golden inputs of {bundle.path} differ by {apart:.2g}, their out-of-distribution scores by "
            f"{scores_apart:.2g} on engine {engine.name}; at most {engine.tolerance:g} and the same diagnoses "
            "are accepted.",
        )


class Models:
    """Holds one model at a time and loads another when images of another bundle wait."""

    def __init__(self, bundles_dir: Path, engine: str, *, step_images: int) -> None:
        self._bundles_dir = bundles_dir
        self._engine = engine
        self._step_images = step_images
        self._refused: set[str] = set()
        self._missing: set[str] = set()
        self.held: Model | None = None

    def load_current(self) -> Model:
        """Load the current bundle. Raises Unfit."""
        self.held = self._load(bundles.find_current(self._bundles_dir))
        return self.held

    def find(self, waiting: Sequence[str]) -> Model | None:
        """Return the model of the first bundle of ``waiting`` (SHA-256 sums) that is installed; None if none is.

        Raises Unfit when the current bundle cannot be verified. Another bundle that is missing or cannot be verified is
        logged once and skipped; its batches wait.
        """
        current = bundles.find_current(self._bundles_dir)
        installed = {bundle.sha256: bundle for bundle in (*bundles.list_installed(self._bundles_dir), current)}
        self._tell_missing(set(waiting) - set(installed))
        for bundle in (installed[sha256] for sha256 in waiting if sha256 in installed):
            if bundle.sha256 in self._refused:
                continue
            if self.held is not None and self.held.bundle.sha256 == bundle.sha256:
                return self.held
            try:
                self.held = self._load(bundle)
                return self.held
            except errors.Unfit as err:
                if bundle is current:
                    raise
                self._refused.add(bundle.sha256)
                log.error("bundle %s is skipped from now on: %s", bundle.path, err)
        return None

    def _tell_missing(self, missing: set[str]) -> None:
        for sha256 in sorted(missing - self._missing):
            log.error(
                "images wait for the bundle whose card has SHA-256 %s, which is not in %s; put its folder back",
                *(sha256, self._bundles_dir),
            )
        self._missing = missing

    def _load(self, bundle: Bundle) -> Model:
        return load(bundle, engines.create(self._engine, step_images=self._step_images))
