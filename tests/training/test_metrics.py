"""Scores against scikit-learn, and calibration."""

import numpy as np
import pytest
from sklearn import metrics as reference

from dermq import taxonomy
from training import calibrate, metrics


@pytest.fixture(params=range(3))
def drawn(request):
    """Random probabilities that lean to the truth, ``(300, 7)``, with class 3 never true nor predicted."""
    chance = np.random.default_rng(request.param)
    truth = chance.choice([0, 1, 2, 4, 5, 6], 300)
    logits = chance.normal(size=(300, 7)) + 1.5 * np.eye(7)[truth]
    logits[:, 3] -= 20
    return calibrate.softmax(logits), truth


def test_scores_equal_scikit_learn(drawn):
    probabilities, truth = drawn
    predicted = probabilities.argmax(axis=1)
    scored = metrics.score(probabilities, truth)
    labels = range(7)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    assert scored.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert scored.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert scored.macro_f1 == pytest.approx(f1.mean())
    for found, expected in ((scored.precision, precision), (scored.recall, recall), (scored.f1, f1)):
        assert [found[code] for code in taxonomy.CODES] == pytest.approx(list(expected))


def test_confusion_equals_scikit_learn(drawn):
    probabilities, truth = drawn
    expected = reference.confusion_matrix(truth, probabilities.argmax(axis=1), labels=range(7))
    assert np.array_equal(metrics.confusion(probabilities, truth), expected)


def test_log_loss_equals_scikit_learn(drawn):
    probabilities, truth = drawn
    assert metrics.log_loss(probabilities, truth) == pytest.approx(
        reference.log_loss(truth, probabilities, labels=range(7))
    )


def test_auroc_equals_scikit_learn_with_ties():
    chance = np.random.default_rng(0)
    positive, negative = chance.integers(3, 9, 200) / 10, chance.integers(0, 7, 300) / 10
    expected = reference.roc_auc_score([1] * 200 + [0] * 300, np.concatenate([positive, negative]))
    assert metrics.auroc(positive, negative) == pytest.approx(expected)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    sure = np.tile([0.9, 0.1, 0, 0, 0, 0, 0], (10, 1))
    assert metrics.calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    assert metrics.calibration_error(sure, np.array([0] * 4 + [1] * 6)) == pytest.approx(0.5)


def test_the_temperature_undoes_an_overconfident_scale():
    chance = np.random.default_rng(1)
    logits = 2 * chance.normal(size=(4000, 7))
    truth = np.array([chance.choice(7, p=row) for row in calibrate.softmax(logits)])
    assert calibrate.temperature(3 * logits, truth) == pytest.approx(3, rel=0.05)


def test_one_score_in_a_hundred_is_above_the_threshold():
    scores = np.random.default_rng(2).normal(size=1000)
    assert (scores > calibrate.threshold(scores)).sum() == 10
