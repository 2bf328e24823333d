"""How far a bundle's decision leans towards the frequent diagnoses; chosen on ``val``.

Training draws rare diagnoses more often than they are, and the logits carry the prior of that drawing. Adding
``tau * log(true prior / drawn prior)`` to them (logit adjustment: Menon et al., "Long-tail learning via logit
adjustment", ICLR 2021) gives the frequencies back: none of it at tau 0, all of it at 1; below 0 it takes away more.
Accuracy rises with tau, recall of the rare diagnoses falls.

The rule: draw ``val`` again and again by lesion and count how often a tau reaches every floor; the tau that does so
most often is taken, if that is in ``LEAST_GAIN`` of the draws more than tau 0. So what is furthest above its floor pays
for what is nearest, by as much as the few images of ``val`` can tell; where nothing reaches the floors, or everything
does, the network decides as trained.
"""

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, scoring, taxonomy
from training import assess, batches

TAUS = (0.0, 0.25, -0.25, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0)
"""The nearest to 0 first. -1 is all diagnoses alike, for images drawn by the square root of their frequency."""
FLOORS = {"accuracy": 0.843, "balanced_accuracy": 0.72, "recall/mel": 0.60}
"""The published accuracy, and what a bundle must keep for the rare diagnoses and for melanoma."""
LEAST_GAIN = 0.05
"""Less than that is the tail of the draws, and no reason to change what was trained."""


def choose(
    logits: NDArray[np.floating], truth: NDArray[np.integer], lesions: list[str], odds: NDArray[np.floating]
) -> bundles.Decision:
    """The decision by the rule above, from the logits ``(n, 7)`` of ``val``; ``odds`` are those of ``log_odds``."""
    draws = assess.lesion_draws(lesions, assess.DRAWS, seed=1)
    reached = [_share_reached(logits + tau * odds, truth, draws) for tau in TAUS]
    best = int(np.argmax(reached))
    tau = TAUS[best] if reached[best] - reached[0] >= LEAST_GAIN else TAUS[0]
    floors = ", ".join(f"{name} {floor:g}" for name, floor in FLOORS.items())
    shares = ", ".join(f"{tau:g}: {share:.2f}" for tau, share in sorted(zip(TAUS, reached, strict=True)))
    return bundles.Decision(
        tau=tau,
        shift=scoring.by_code(tau * odds),
        chosen=f"on val, for the greatest share of draws of lesions that reach {floors}; shares by tau: {shares}",
    )


def log_odds(truth: NDArray[np.int64], class_balance: float) -> NDArray[np.float64]:
    """``log(true prior / drawn prior)`` of each class ``(7,)``, for images drawn from ``truth`` as training draws them.

    0 for a class without images.
    """
    counts = np.bincount(truth, minlength=len(taxonomy.CODES))
    drawn = batches.proportions(truth, class_balance)
    present = counts > 0
    odds = np.zeros(len(taxonomy.CODES))
    odds[present] = np.log(counts[present] / counts.sum()) - np.log(drawn[present] / drawn.sum())
    return odds


def _share_reached(logits: NDArray[np.floating], truth: NDArray[np.integer], draws: NDArray[np.floating]) -> float:
    """The share of ``draws`` in which the decision reaches every floor."""
    found = scoring.rates(scoring.confusion(scoring.decide(logits), truth, draws))
    reached = [_figure(found, name) >= floor for name, floor in FLOORS.items()]
    return float(np.all(reached, axis=0).mean())


def _figure(found: dict[str, NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    kind, _, code = name.partition("/")
    return found[kind][:, taxonomy.CODES.index(code)] if code else found[kind]
