"""Scores of predictions, the same for training and for evaluations of batches, in plain NumPy.

Probabilities are ``(n, 7)`` with classes in the order of the taxonomy, true classes are their numbers ``(n,)``. All
figures are fractions of 1, except the log loss, which is in nats.

Ties and undefined figures are treated as isic-challenge-scoring does. Where several classes share the highest
probability, the decision is for no class and counts as wrong. A precision without predictions, a recall without true
images and an F1 without either are 1. Balanced accuracy leaves out classes without true images.

Intervals are percentiles of a bootstrap over lesions, not images: several images of one lesion are not independent
(Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). ``weights (draws, n)`` says how often each
image was drawn; a function that takes them gives one result for each draw.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermq import taxonomy

CLASSES = len(taxonomy.CODES)
UNDECIDED = CLASSES
"""The class number of a decision for no class, after a tie."""
CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in Guo et al. (ICML 2017)."""

DRAWS = 1000
"""Draws of the bootstrap."""
INTERVAL_PERCENTILES = (2.5, 97.5)
SPECIFICITIES = (0.80, 0.90, 0.95)
"""Specificities at which the sensitivity for melanoma is given."""
MELANOMA = "mel"

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class Scores:
    """The scores of one split in a bundle's card. Figures of classes are by diagnosis code."""

    images: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    expected_calibration_error: float
    precision: dict[str, float]
    recall: dict[str, float]
    f1: dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def decide(probabilities: Floats) -> NDArray[np.int64]:
    """Return the class number of the highest probability ``(n,)``, or UNDECIDED where several are highest."""
    tied = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return np.where(tied, UNDECIDED, probabilities.argmax(axis=1))


def count_confusions(decided: Integers, truth: Integers, weights: Floats | None = None) -> NDArray[np.float64]:
    """Return counts ``(7, 8)``: rows are true classes, columns decisions, the last for UNDECIDED.

    With ``weights (draws, n)``, a table for each draw: ``(draws, 7, 8)``.
    """
    cells = np.eye(CLASSES * (CLASSES + 1))[truth * (CLASSES + 1) + decided]
    counts = cells.sum(axis=0) if weights is None else weights @ cells
    return np.asarray(counts.reshape(*counts.shape[:-1], CLASSES, CLASSES + 1), np.float64)


def compute_rates(table: Floats) -> dict[str, NDArray[np.float64]]:
    """Return the rates of one table ``(7, 8)``, or of many ``(..., 7, 8)``: ``(...)``, by class ``(..., 7)``.

    Recall is the sensitivity of a class, precision its positive predictive value, F1 their harmonic mean (Sokolova and
    Lapalme, Information Processing & Management, 2009). A macro average weighs classes equally, a weighted one by their
    images. Balanced accuracy is the mean recall of the classes that have images.
    """
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    true, decided = table.sum(axis=-1), table[..., :CLASSES].sum(axis=-2)
    recall, precision, f1 = _divide(hits, true), _divide(hits, decided), _divide(2 * hits, true + decided)
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


def find_defined(table: Floats) -> dict[str, NDArray[np.bool_]]:
    """Return for which classes ``(..., 7)`` a rate is measured; elsewhere it is 1 by convention."""
    true, decided = table.sum(axis=-1) > 0, table[..., :CLASSES].sum(axis=-2) > 0
    return {"recall": true, "precision": decided, "f1": true | decided}


def measure_calibration_error(
    probabilities: Floats, truth: Integers, weights: Floats | None = None, bins: int = CALIBRATION_BINS
) -> NDArray[np.float64]:
    """Return the expected calibration error of the top prediction (Naeini et al., AAAI 2015).

    It is the mean over all images of the gap between confidence and accuracy in their bin. ``()``, or ``(draws,)`` with
    ``weights``.
    """
    place, confidence, right = sort_into_bins(probabilities, truth, bins)
    gaps = np.eye(bins)[place] * (right - confidence)[:, None]
    drawn = np.ones((1, len(truth))) if weights is None else weights
    errors = np.abs(drawn @ gaps).sum(axis=-1) / drawn.sum(axis=-1)
    return np.asarray(errors[0] if weights is None else errors, np.float64)


def sort_into_bins(
    probabilities: Floats, truth: Integers, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Return for each image ``(n,)`` the bin of its confidence, its confidence, and whether its decision is right."""
    confidence = probabilities.max(axis=1)
    return np.minimum((confidence * bins).astype(np.int64), bins - 1), confidence, decide(probabilities) == truth


def measure_log_loss(probabilities: Floats, truth: Integers) -> float:
    """Return the mean negative log-likelihood of the truth, in nats. A probability of 0 counts as 1.2e-38."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def score(probabilities: Floats, truth: Integers) -> Scores:
    """Return everything a card states about one split."""
    found = compute_rates(count_confusions(decide(probabilities), truth))
    return Scores(
        images=len(truth),
        accuracy=float(found["accuracy"]),
        balanced_accuracy=float(found["balanced_accuracy"]),
        macro_f1=float(found["macro_f1"]),
        expected_calibration_error=float(measure_calibration_error(probabilities, truth)),
        precision=map_by_code(found["precision"]),
        recall=map_by_code(found["recall"]),
        f1=map_by_code(found["f1"]),
    )


def measure_auroc(positive: Floats, negative: Floats) -> float:
    """Return the area under the ROC curve of some ``positive`` and ``negative`` scores, ``(n,)`` each.

    It is the chance that a random positive score is above a random negative one, ties counted half (Hanley and McNeil,
    Radiology, 1982).
    """
    scores = np.concatenate([positive, negative])
    return float(trace_roc(scores, np.arange(len(scores)) < len(positive)).measure_area())


@dataclass(frozen=True)
class Roc:
    """A ROC curve, or one for each draw: points ``(..., points)`` as the threshold falls, from (0, 0) to (1, 1)."""

    false: NDArray[np.float64]
    """False positive rates: 1 - specificity."""
    true: NDArray[np.float64]
    """True positive rates: sensitivity."""

    def measure_area(self) -> NDArray[np.float64]:
        """Return the area under the curve by the trapezoidal rule, ``(...)``."""
        return np.asarray(np.trapezoid(self.true, self.false), np.float64)

    def find_sensitivity(self, specificity: float) -> NDArray[np.float64]:
        """Return the highest sensitivity of a threshold whose specificity is at least ``specificity``, ``(...)``."""
        return np.asarray(np.where(self.false <= 1 - specificity + 1e-12, self.true, 0).max(axis=-1), np.float64)


def trace_roc(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Roc:
    """Return the ROC curve of ``scores (n,)``, with a point for each distinct score (Fawcett, 2006).

    With ``weights (draws, n)``, a curve for each draw. Every draw must hold positive and negative images.
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


def map_by_code(values: Floats) -> dict[str, float]:
    """Return seven figures ``(7,)`` by diagnosis code."""
    return {code: float(value) for code, value in zip(taxonomy.CODES, values, strict=True)}


def flatten(found: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the ``compute_rates`` of one table as plain numbers: ``recall`` becomes ``recall/akiec`` and so on."""
    return {
        (f"{name}/{code}" if code else name): float(value)
        for name, values in found.items()
        for code, value in (map_by_code(values).items() if np.ndim(values) else [("", values)])
    }


def count_support(truth: Integers) -> dict[str, int]:
    """Return the number of images of each class by diagnosis code."""
    return {code: int((truth == number).sum()) for number, code in enumerate(taxonomy.CODES)}


def draw_lesions(lesions: Sequence[str], draws: int = DRAWS, seed: int = 1) -> NDArray[np.float64]:
    """Return bootstrap weights ``(draws, n)`` of images: how often the lesion of each was drawn.

    As many lesions are drawn as there are, with replacement; the images of a lesion are drawn together.
    """
    names, place = np.unique(lesions, return_inverse=True)
    chance = np.random.default_rng(seed)
    counts = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.asarray(counts[:, place], np.float64)


def measure(probabilities: Floats, truth: Integers, weights: Floats) -> dict[str, Figure]:
    """Return every figure with its interval, by name; those of a class as ``recall/mel``.

    A class that has all images or none gets no area under the ROC curve; if it is melanoma, no sensitivities either.
    ``find_undefined`` names the figures that are 1 by convention alone.
    """
    found = dict(_measure_rates(probabilities, truth, weights))
    found["expected_calibration_error"] = measure_calibration(probabilities, truth, weights)
    for number in range(CLASSES):
        found |= _measure_ranking(probabilities[:, number], truth == number, weights, taxonomy.CODES[number])
    return found


def measure_calibration(probabilities: Floats, truth: Integers, weights: Floats) -> Figure:
    """Return the expected calibration error with its interval."""
    drawn = measure_calibration_error(probabilities, truth, weights)
    return make_figure(measure_calibration_error(probabilities, truth), drawn)


def make_figure(value: float | NDArray[np.float64], drawn: NDArray[np.float64]) -> Figure:
    """Return a figure with the percentile interval of its ``drawn`` values ``(draws,)``."""
    low, high = np.percentile(drawn, INTERVAL_PERCENTILES)
    return Figure(float(value), float(low), float(high))


def find_undefined(probabilities: Floats, truth: Integers) -> set[str]:
    """Return the names of figures that are 1 by convention alone, and of averages over such figures."""
    measured = find_defined(count_confusions(decide(probabilities), truth))
    names = {f"{kind}/{taxonomy.CODES[number]}" for kind, ok in measured.items() for number in np.flatnonzero(~ok)}
    names |= {f"macro_{kind}" for kind, ok in measured.items() if not ok.all()}
    names |= {f"weighted_{kind}" for kind, ok in measured.items() if not ok[np.unique(truth)].all()}
    return names


def _measure_rates(probabilities: Floats, truth: Integers, weights: Floats) -> Iterator[tuple[str, Figure]]:
    """Yield the rates by name; the interval of a class leaves out draws in which its rate is undefined."""
    decided = decide(probabilities)
    tables = count_confusions(decided, truth, weights)
    drawn, measured = compute_rates(tables), find_defined(tables)
    for name, value in flatten(compute_rates(count_confusions(decided, truth))).items():
        kind, _, code = name.partition("/")
        column = drawn[kind]
        if code:
            number = taxonomy.CODES.index(code)
            column = column[:, number][measured[kind][:, number]]
        yield name, make_figure(value, column if len(column) else np.array([value]))


def _measure_ranking(scores: Floats, positive: NDArray[np.bool_], weights: Floats, code: str) -> dict[str, Figure]:
    """Return the figures of a class that follow from its ROC curve."""
    if positive.all() or not positive.any():
        return {}
    both = weights[(weights @ positive > 0) & (weights @ ~positive > 0)]
    one, drawn = trace_roc(scores, positive), trace_roc(scores, positive, both)
    found = {f"auroc/{code}": make_figure(one.measure_area(), drawn.measure_area())}
    for level in SPECIFICITIES if code == MELANOMA else ():
        name = f"melanoma_sensitivity_at_specificity/{level:g}"
        found[name] = make_figure(one.find_sensitivity(level), drawn.find_sensitivity(level))
    return found


def _divide(above: Floats, below: Floats) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.ones(np.shape(above)), where=below > 0)
