"""Scoring compared with scikit-learn and isic-challenge-scoring, and calibration."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from isic_challenge_scoring import metrics as isic
from isic_challenge_scoring.confusion import create_binary_confusion_matrix
from sklearn import metrics as reference

from dermq import scoring, taxonomy
from training import calibrate


@pytest.fixture(params=range(3))
def drawn(request: pytest.FixtureRequest) -> Any:
    """Random probabilities ``(300, 7)`` that favour the truth; class 3 is neither true nor predicted."""
    chance = np.random.default_rng(request.param)
    truth = chance.choice([0, 1, 2, 4, 5, 6], 300)
    logits = chance.normal(size=(300, 7)) + 1.5 * np.eye(7)[truth]
    logits[:, 3] -= 20
    return calibrate.apply_softmax(logits), truth


def test_scores_equal_scikit_learn(drawn: Any) -> None:
    probabilities, truth = drawn
    predicted = probabilities.argmax(axis=1)
    scored = scoring.score(probabilities, truth)
    found = scoring.compute_rates(scoring.count_confusions(scoring.decide(probabilities), truth))
    expected = {
        average: reference.precision_recall_fscore_support(
            truth, predicted, labels=range(7), average=average, zero_division=1
        )[:3]
        for average in (None, "macro", "weighted")
    }
    assert scored.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert scored.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert scored.macro_f1 == pytest.approx(expected["macro"][2])
    for place, name in enumerate(("precision", "recall", "f1")):
        assert list(getattr(scored, name).values()) == pytest.approx(list(expected[None][place]))
        for average in ("macro", "weighted"):
            assert found[f"{average}_{name}"] == pytest.approx(expected[average][place])


def test_confusion_equals_scikit_learn(drawn: Any) -> None:
    probabilities, truth = drawn
    expected = reference.confusion_matrix(truth, probabilities.argmax(axis=1), labels=range(7))
    table = scoring.count_confusions(scoring.decide(probabilities), truth)
    assert np.array_equal(table[:, :7], expected)
    assert table[:, 7].sum() == 0


def test_scores_equal_the_isic_challenges_ties_and_undefined_values_included(drawn: Any) -> None:
    probabilities, truth = drawn
    probabilities[:40] = np.round(probabilities[:40] * 4) / 4
    names = list(taxonomy.CODES)
    index = pd.Index(range(len(truth)))
    true = pd.DataFrame(np.eye(7)[truth], columns=names, index=index)
    said = pd.DataFrame(probabilities, columns=names, index=index)
    weights = pd.Series(1.0, index=index)
    decided = scoring.decide(probabilities)
    scored = scoring.score(probabilities, truth)
    assert (decided == scoring.UNDECIDED).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library gives ties a label that is not a class
        expected = isic.balanced_multiclass_accuracy(true, said, weights)
    assert scored.balanced_accuracy == pytest.approx(expected)
    for number, code in enumerate(names):
        table = create_binary_confusion_matrix(truth == number, decided == number)
        assert scored.recall[code] == pytest.approx(isic.binary_sensitivity(table))
        assert scored.precision[code] == pytest.approx(isic.binary_ppv(table))
        assert scored.f1[code] == pytest.approx(isic.binary_dice(table))
        if (truth == number).any():
            area = scoring.measure_auroc(probabilities[truth == number, number], probabilities[truth != number, number])
            assert area == pytest.approx(isic.auc(true[code], said[code], weights))


def test_the_roc_curve_equals_scikit_learns(drawn: Any) -> None:
    probabilities, truth = drawn
    scores, positive = np.round(probabilities[:, 4], 2), truth == 4
    found = scoring.trace_roc(scores, positive)
    false, true, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    assert found.false == pytest.approx(false)
    assert found.true == pytest.approx(true)
    assert found.find_sensitivity(0.9) == pytest.approx(true[false <= 0.1].max())


def test_the_roc_curve_of_a_draw_counts_images_as_often_as_drawn(drawn: Any) -> None:
    probabilities, truth = drawn
    scores, positive = np.round(probabilities[:, 4], 2), truth == 4
    weights = np.random.default_rng(0).integers(0, 3, (4, len(truth))).astype(float)
    found = scoring.trace_roc(scores, positive, weights)
    for area, sensitivity, row in zip(
        found.measure_area(), found.find_sensitivity(0.9), weights.astype(int), strict=True
    ):
        repeated = np.repeat(positive, row), np.repeat(scores, row)
        false, true, _ = reference.roc_curve(*repeated, drop_intermediate=False)
        assert area == pytest.approx(reference.roc_auc_score(*repeated))
        assert sensitivity == pytest.approx(true[false <= 0.1].max())


def test_weighted_draws_count_images_as_often_as_drawn(drawn: Any) -> None:
    probabilities, truth = drawn
    weights = np.random.default_rng(0).integers(0, 3, (4, len(truth))).astype(float)
    decided = scoring.decide(probabilities)
    tables, errors = (
        scoring.count_confusions(decided, truth, weights),
        scoring.measure_calibration_error(probabilities, truth, weights),
    )
    for table, error, row in zip(tables, errors, weights.astype(int), strict=True):
        repeated = np.repeat(np.arange(len(truth)), row)
        assert np.array_equal(table, scoring.count_confusions(decided[repeated], truth[repeated]))
        assert error == pytest.approx(
            float(scoring.measure_calibration_error(probabilities[repeated], truth[repeated]))
        )


def test_log_loss_equals_scikit_learn(drawn: Any) -> None:
    probabilities, truth = drawn
    assert scoring.measure_log_loss(probabilities, truth) == pytest.approx(
        reference.log_loss(truth, probabilities, labels=range(7))
    )


def test_auroc_equals_scikit_learn_with_ties() -> None:
    chance = np.random.default_rng(0)
    positive, negative = chance.integers(3, 9, 200) / 10, chance.integers(0, 7, 300) / 10
    expected = reference.roc_auc_score([1] * 200 + [0] * 300, np.concatenate([positive, negative]))
    assert scoring.measure_auroc(positive, negative) == pytest.approx(expected)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.tile([0.9, 0.1, 0, 0, 0, 0, 0], (10, 1))
    assert scoring.measure_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    assert scoring.measure_calibration_error(sure, np.array([0] * 4 + [1] * 6)) == pytest.approx(0.5)


def test_the_temperature_undoes_an_overconfident_scale() -> None:
    chance = np.random.default_rng(1)
    logits = 2 * chance.normal(size=(4000, 7))
    truth = np.array([chance.choice(7, p=row) for row in calibrate.apply_softmax(logits)])
    assert calibrate.fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.05)


def test_one_score_in_a_hundred_is_above_the_threshold() -> None:
    scores = np.random.default_rng(2).normal(size=1000)
    assert (scores > calibrate.find_threshold(scores)).sum() == 10
