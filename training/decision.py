"""Logit adjustment: chooses on ``val`` how much a bundle's decision favours the frequent diagnoses.

Training samples rare diagnoses more often than they occur, and the logits contain this sampling prior. Adding
``tau * log(true prior / drawn prior)`` to the logits (Menon et al., "Long-tail learning via logit adjustment", ICLR
2021) replaces it by the true prior: not at all for tau 0, completely for tau 1; a negative tau moves away from the true
prior. With a greater tau, accuracy rises and the recall of rare diagnoses falls.

The rule: for each tau, count in how many bootstrap draws of ``val``, by lesion, all figures reach their floors. The tau
with the greatest share is chosen when its share exceeds that of tau 0 by ``LEAST_GAIN`` or more. Otherwise tau is 0 and
the network decides as it was trained.
"""

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, scoring, taxonomy
from training import assess, batches

TAUS = (0.0, 0.25, -0.25, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0)
"""The values nearest to 0 come first. For sampling by the square root of the frequency, -1 gives a uniform prior."""
FLOORS = {"accuracy": 0.843, "balanced_accuracy": 0.72, "recall/mel": 0.60}
"""The published accuracy, and the least figures for the rare diagnoses and for melanoma."""
LEAST_GAIN = 0.05
"""A smaller gain may be chance, so it is no reason to change the trained decision."""


def choose(
    logits: NDArray[np.floating], truth: NDArray[np.integer], lesions: list[str], odds: NDArray[np.floating]
) -> bundles.Decision:
    """Return the decision by the rule above, from the logits ``(n, 7)`` of ``val`` and the log odds."""
    draws = assess.draw_lesions(lesions, assess.DRAWS, seed=1)
    reached = [_measure_share_reached(logits + tau * odds, truth, draws) for tau in TAUS]
    best = int(np.argmax(reached))
    tau = TAUS[best] if reached[best] - reached[0] >= LEAST_GAIN else TAUS[0]
    floors = ", ".join(f"{name} {floor:g}" for name, floor in FLOORS.items())
    shares = ", ".join(f"{tau:g}: {share:.2f}" for tau, share in sorted(zip(TAUS, reached, strict=True)))
    return bundles.Decision(
        tau=tau,
        shift=scoring.map_by_code(tau * odds),
        chosen=f"on val, for the greatest share of draws of lesions that reach {floors}; shares by tau: {shares}",
    )


def measure_log_odds(truth: NDArray[np.int64], class_balance: float) -> NDArray[np.float64]:
    """Return ``log(true prior / drawn prior)`` of each class ``(7,)``, for training's sampling of ``truth``.

    The value of a class without images is 0.
    """
    counts = np.bincount(truth, minlength=len(taxonomy.CODES))
    drawn = batches.weigh_classes(truth, class_balance)
    present = counts > 0
    odds = np.zeros(len(taxonomy.CODES))
    odds[present] = np.log(counts[present] / counts.sum()) - np.log(drawn[present] / drawn.sum())
    return odds


def _measure_share_reached(
    logits: NDArray[np.floating], truth: NDArray[np.integer], draws: NDArray[np.floating]
) -> float:
    """Return the share of ``draws`` in which every figure reaches its floor."""
    found = scoring.compute_rates(scoring.count_confusions(scoring.decide(logits), truth, draws))
    reached = [_make_figure(found, name) >= floor for name, floor in FLOORS.items()]
    return float(np.all(reached, axis=0).mean())


def _make_figure(found: dict[str, NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    kind, _, code = name.partition("/")
    return found[kind][:, taxonomy.CODES.index(code)] if code else found[kind]
