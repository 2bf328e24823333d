"""What a prediction says, from seven probabilities."""

import math

import numpy as np
import pytest

from dermq import taxonomy
from dermq.queue.outcomes import Predicted, Provenance, predicted

PROVENANCE = Provenance(bundle_id=1, engine="fake", worker="w", ood_threshold=0.5)


def of(probabilities: list[float], ood_score: float = 0.0) -> Predicted:
    return predicted(7, np.array(probabilities, np.float32), ood_score, 1.0, PROVENANCE)


@pytest.mark.parametrize(
    ("probabilities", "nats"),
    [([1 / 7] * 7, math.log(7)), ([1, 0, 0, 0, 0, 0, 0], 0.0), ([0.5, 0.5, 0, 0, 0, 0, 0], math.log(2))],
)
def test_entropy_is_in_nats(probabilities: list[float], nats: float) -> None:
    assert of(probabilities).row["entropy"] == pytest.approx(nats, abs=1e-6)


def test_the_diagnosis_is_the_most_probable_one() -> None:
    row = of([0.1, 0.0, 0.0, 0.0, 0.6, 0.3, 0.0]).row
    assert (row["diagnosis"], row["confidence"]) == ("mel", pytest.approx(0.6))
    assert [row[f"p_{code}"] for code in taxonomy.CODES] == pytest.approx([0.1, 0, 0, 0, 0.6, 0.3, 0])


@pytest.mark.parametrize(("score", "is_out"), [(0.4, False), (0.5, False), (0.6, True)])
def test_out_of_distribution_is_above_the_threshold(score: float, is_out: bool) -> None:
    assert of([1 / 7] * 7, score).row["out_of_distribution"] is is_out
