"""Scores of predictions, from probabilities ``(n, 7)`` and true class numbers ``(n,)``, in plain NumPy.

Ties and undefined figures are those of isic-challenge-scoring: a tied maximum decides for no class and counts as wrong;
a precision without predictions, a recall without true images and an F1 without either are 1; balanced accuracy
leaves out classes without true images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, taxonomy

CLASSES = len(taxonomy.CODES)
UNDECIDED = CLASSES
"""The number of the decision for no class."""
CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in Guo et al. (ICML 2017)."""

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def decide(probabilities: Floats) -> NDArray[np.int64]:
    """The class number of the highest probability ``(n,)``, or UNDECIDED where several are highest."""
    tied = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return np.where(tied, UNDECIDED, probabilities.argmax(axis=1))


def confusion(decided: Integers, truth: Integers, weights: Floats | None = None) -> NDArray[np.float64]:
    """Counts ``(7, 8)``: rows are true classes, columns decisions, the last for UNDECIDED.

    With ``weights (draws, n)`` of the images, a table for each draw: ``(draws, 7, 8)``.
    """
    cells = np.eye(CLASSES * (CLASSES + 1))[truth * (CLASSES + 1) + decided]
    counts = cells.sum(axis=0) if weights is None else weights @ cells
    return np.asarray(counts.reshape(*counts.shape[:-1], CLASSES, CLASSES + 1), np.float64)


def rates(table: Floats) -> dict[str, NDArray[np.float64]]:
    """Rates of one table ``(7, 8)``, or of many ``(..., 7, 8)``: each ``(...)``, by class ``(..., 7)``."""
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    true, decided = table.sum(axis=-1), table[..., :CLASSES].sum(axis=-2)
    recall, precision, f1 = _ratio(hits, true), _ratio(hits, decided), _ratio(2 * hits, true + decided)
    total, present = true.sum(axis=-1), true > 0
    return {
        "accuracy": hits.sum(axis=-1) / total,
        "balanced_accuracy": np.where(present, recall, 0).sum(axis=-1) / present.sum(axis=-1),
        "macro_precision": precision.mean(axis=-1),
        "macro_recall": recall.mean(axis=-1),
        "macro_f1": f1.mean(axis=-1),
        "weighted_precision": (precision * true).sum(axis=-1) / total,
        "weighted_recall": (recall * true).sum(axis=-1) / total,
        "weighted_f1": (f1 * true).sum(axis=-1) / total,
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def defined(table: Floats) -> dict[str, NDArray[np.bool_]]:
    """Which of the rates by class ``(..., 7)`` are more than a convention."""
    true, decided = table.sum(axis=-1) > 0, table[..., :CLASSES].sum(axis=-2) > 0
    return {"recall": true, "precision": decided, "f1": true | decided}


def calibration_error(
    probabilities: Floats, truth: Integers, weights: Floats | None = None, bins: int = CALIBRATION_BINS
) -> NDArray[np.float64]:
    """Expected calibration error of the top prediction (Naeini et al., AAAI 2015); one for each draw of ``weights``."""
    place, confidence, right = confidence_bins(probabilities, truth, bins)
    gaps = np.eye(bins)[place] * (right - confidence)[:, None]
    drawn = np.ones((1, len(truth))) if weights is None else weights
    errors = np.abs(drawn @ gaps).sum(axis=-1) / drawn.sum(axis=-1)
    return np.asarray(errors[0] if weights is None else errors, np.float64)


def confidence_bins(
    probabilities: Floats, truth: Integers, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """For each image the bin of its confidence, its confidence, and whether the decision is right."""
    confidence = probabilities.max(axis=1)
    return np.minimum((confidence * bins).astype(np.int64), bins - 1), confidence, decide(probabilities) == truth


def log_loss(probabilities: Floats, truth: Integers) -> float:
    """Mean negative log-likelihood of the truth, in nats."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def score(probabilities: Floats, truth: Integers) -> bundles.Metrics:
    """Everything a card states about one split."""
    found = rates(confusion(decide(probabilities), truth))
    return bundles.Metrics(
        images=len(truth),
        accuracy=float(found["accuracy"]),
        balanced_accuracy=float(found["balanced_accuracy"]),
        macro_f1=float(found["macro_f1"]),
        expected_calibration_error=float(calibration_error(probabilities, truth)),
        precision=by_code(found["precision"]),
        recall=by_code(found["recall"]),
        f1=by_code(found["f1"]),
    )


def auroc(positive: Floats, negative: Floats) -> float:
    """The chance that a random ``positive`` score is above a random ``negative`` one, ties counted half."""
    scores = np.concatenate([positive, negative])
    return float(roc(scores, np.arange(len(scores)) < len(positive)).area())


@dataclass(frozen=True)
class Roc:
    """A ROC curve, or one for each draw: points ``(..., points)`` as the threshold falls, from (0, 0) to (1, 1)."""

    false: NDArray[np.float64]
    true: NDArray[np.float64]

    def area(self) -> NDArray[np.float64]:
        """The area below, ``(...)``."""
        return np.asarray(np.trapezoid(self.true, self.false), np.float64)

    def sensitivity_at(self, specificity: float) -> NDArray[np.float64]:
        """The highest sensitivity of a threshold whose specificity is at least ``specificity``, ``(...)``."""
        return np.asarray(np.where(self.false <= 1 - specificity + 1e-12, self.true, 0).max(axis=-1), np.float64)


def roc(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Roc:
    """False and true positive rates, a point for each distinct score; a curve for each draw of ``weights (draws, n)``.

    There have to be positive and negative images, in each draw.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    drawn = np.ones(len(scores)) if weights is None else weights
    hits, misses = (np.cumsum((drawn * kind)[..., order], axis=-1)[..., ends] for kind in (positive, ~positive))
    false, true = (
        np.concatenate([np.zeros_like(counts[..., :1]), counts / counts[..., -1:]], axis=-1)
        for counts in (misses, hits)
    )
    return Roc(false, true)


def by_code(values: Floats) -> dict[str, float]:
    """Seven figures by diagnosis code."""
    return {code: float(value) for code, value in zip(taxonomy.CODES, values, strict=True)}


def flat(found: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """``rates`` of one table as plain numbers: ``recall`` becomes ``recall/akiec`` and so on."""
    return {
        (f"{name}/{code}" if code else name): float(value)
        for name, values in found.items()
        for code, value in (by_code(values).items() if np.ndim(values) else [("", values)])
    }


def _ratio(above: Floats, below: Floats) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.ones(np.shape(above)), where=below > 0)
