"""The decision: shifts are known, chosen by the floors, and 0 when no choice is better."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dermq import taxonomy
from training import decision

Undecided = tuple[NDArray[np.float64], NDArray[np.int64], list[str]]
MEL, NV = taxonomy.CODES.index("mel"), taxonomy.CODES.index("nv")


def test_the_odds_lead_from_the_drawn_shares_to_the_true_ones() -> None:
    truth = np.repeat(np.arange(7), [4, 9, 16, 1, 25, 100, 0])
    odds = decision.measure_log_odds(truth, 0.5)
    drawn = np.sqrt(np.bincount(truth, minlength=7))
    restored = drawn * np.exp(odds)
    assert restored / restored.sum() == pytest.approx(np.bincount(truth, minlength=7) / len(truth))
    assert odds[6] == 0


def test_images_drawn_as_often_as_they_are_leave_nothing_to_shift() -> None:
    assert decision.measure_log_odds(np.array([0, 0, 0, 1, 2]), 0.0) == pytest.approx(np.zeros(7))


@pytest.fixture
def undecided() -> Undecided:
    """Logits, truth and lesions where half of ``nv`` is called ``mel``; a tau that corrects these loses melanomas."""
    truth = np.repeat(np.arange(7), [10, 10, 10, 10, 40, 100, 10])
    logits = 10.0 * np.eye(7)[truth]
    logits[truth == NV, MEL] = 10 + np.linspace(-0.5, 0.5, 100)
    logits[truth == MEL, NV] = 10 - np.linspace(0.1, 0.9, 40)
    return logits, truth, [str(number) for number in range(len(truth))]


ODDS = np.where(np.arange(7) == NV, 1.0, 0.0)


def test_the_tau_is_the_one_that_reaches_every_floor_most_surely(undecided: Undecided) -> None:
    chosen = decision.choose(*undecided, ODDS)
    assert chosen.tau == 0.25
    assert chosen.shift == {code: 0.25 if code == "nv" else 0.0 for code in taxonomy.CODES}
    assert "0: 0.00, 0.25: 0.26, 0.5: 0.12, 0.75: 0.00" in chosen.chosen


def test_where_melanomas_are_missed_the_decision_favours_the_rare(undecided: Undecided) -> None:
    logits, truth, lesions = undecided
    logits[truth == NV] -= 2 * np.eye(7)[MEL]
    logits[truth == MEL] -= 0.6 * np.eye(7)[MEL]
    assert decision.choose(logits, truth, lesions, ODDS).tau < 0


@pytest.mark.parametrize("sure", [10.0, -10.0])
def test_where_all_taus_do_as_well_the_network_decides_as_trained(undecided: Undecided, sure: float) -> None:
    _, truth, lesions = undecided
    chosen = decision.choose(sure * np.eye(7)[truth], truth, lesions, ODDS)
    assert chosen.tau == 0
    assert set(chosen.shift.values()) == {0.0}


def test_a_gain_in_a_few_draws_is_no_reason_to_leave_the_networks_own_decision(
    undecided: Undecided, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "LEAST_GAIN", 0.3)
    assert decision.choose(*undecided, ODDS).tau == 0
