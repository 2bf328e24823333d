"""Scores of predictions, from probabilities ``(n, 7)`` and true class numbers ``(n,)``, in plain NumPy.

An undefined figure (a class that is never predicted, or never true) is 0, as scikit-learn has it.
"""

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, taxonomy

CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in Guo et al. (ICML 2017)."""

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def confusion(probabilities: Floats, truth: Integers) -> NDArray[np.int64]:
    """Counts ``(7, 7)``: rows are true classes, columns predicted ones."""
    table = np.zeros((len(taxonomy.CODES),) * 2, np.int64)
    np.add.at(table, (truth, probabilities.argmax(axis=1)), 1)
    return table


def calibration_error(probabilities: Floats, truth: Integers, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the top prediction (Naeini et al., AAAI 2015)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float(np.sum(right[place == b])) - float(np.sum(confidence[place == b]))) for b in range(bins)]
    return sum(gaps) / len(truth)


def log_loss(probabilities: Floats, truth: Integers) -> float:
    """Mean negative log-likelihood of the truth, in nats."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def score(probabilities: Floats, truth: Integers) -> bundles.Metrics:
    """Everything a card states about one split."""
    table = confusion(probabilities, truth)
    hits = np.diag(table).astype(float)
    recall = _ratio(hits, table.sum(axis=1))
    precision = _ratio(hits, table.sum(axis=0))
    f1 = _ratio(2 * precision * recall, precision + recall)
    present = table.sum(axis=1) > 0
    return bundles.Metrics(
        images=len(truth),
        accuracy=float(hits.sum() / len(truth)),
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1.mean()),
        expected_calibration_error=calibration_error(probabilities, truth),
        precision=_by_code(precision),
        recall=_by_code(recall),
        f1=_by_code(f1),
    )


def auroc(positive: Floats, negative: Floats) -> float:
    """The chance that a random ``positive`` score is above a random ``negative`` one, ties counted half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    tied = np.searchsorted(ordered, positive, "right") - below
    return float((below + tied / 2).mean() / len(negative))


def _ratio(above: Floats, below: Floats | Integers) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros(len(above)), where=np.asarray(below) > 0)


def _by_code(values: NDArray[np.float64]) -> dict[str, float]:
    return {code: float(value) for code, value in zip(taxonomy.CODES, values, strict=True)}
