"""Scores that can be computed by hand. ``tests/training/test_scoring.py`` compares scoring with other libraries."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from dermq import scoring
from dermq.scoring import Figure, Roc


def test_scoring_imports_numpy_and_the_taxonomy_alone() -> None:
    tree = ast.parse(Path(scoring.__file__).read_text())
    found = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name in found if str(name).split(".")[0] not in sys.stdlib_module_names} == {
        "numpy",
        "numpy.typing",
        "dermq",
    }
    assert {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "dermq"
        for alias in node.names
    } == {"taxonomy"}


def test_log_loss_is_in_nats() -> None:
    probabilities = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0.25, 0.75, 0, 0, 0, 0, 0]])
    assert scoring.measure_log_loss(probabilities, np.array([0, 0])) == pytest.approx(1.5 * np.log(2))


def test_a_probability_of_zero_gives_a_finite_log_loss() -> None:
    assert scoring.measure_log_loss(np.eye(7)[[0]], np.array([1])) == pytest.approx(87.3365, abs=1e-3)


def test_the_images_of_a_lesion_are_drawn_together_and_as_many_lesions_as_there_are() -> None:
    weights = scoring.draw_lesions(["a", "b", "a", "c"], draws=200, seed=3)
    assert weights.shape == (200, 4)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert set(weights[:, [0, 1, 3]].sum(axis=1)) == {3}
    assert weights.mean(axis=0) == pytest.approx([1, 1, 1, 1], abs=0.2)


def test_a_thousand_draws_are_the_same_each_time() -> None:
    weights = scoring.draw_lesions(["a", "b", "c"])
    assert weights.shape == (1000, 3)
    assert np.array_equal(weights, scoring.draw_lesions(["a", "b", "c"], draws=1000, seed=1))
    assert not np.array_equal(weights, scoring.draw_lesions(["a", "b", "c"], seed=2))


def test_an_interval_leaves_out_a_fortieth_on_each_side() -> None:
    assert scoring.make_figure(3, np.arange(201) / 2) == Figure(3, 2.5, 97.5)
    assert str(Figure(0.5, 0.25, 0.75)) == "0.500 (0.250 to 0.750)"


def test_the_sensitivity_at_a_specificity_is_that_of_the_best_threshold_that_keeps_it() -> None:
    curve = Roc(false=np.array([0, 0.05, 0.1, 0.3, 1]), true=np.array([0, 0.4, 0.6, 0.9, 1]))
    assert [float(curve.find_sensitivity(level)) for level in (1.0, 0.95, 0.9, 0.7, 0.0)] == [0, 0.4, 0.6, 0.9, 1]


FOUR = np.eye(7)[[4, 4, 5, 5]] * 0.6 + np.eye(7)[[5, 5, 4, 4]] * [[0.1], [0.3], [0.2], [0.35]] + 0.01
"""The probabilities of two images predicted as mel, then of two as nv."""
EQUAL = np.ones((3, 4))


def test_figures_of_images_that_are_all_right_are_1_without_an_interval() -> None:
    found = scoring.measure(FOUR, np.array([4, 4, 5, 5]), EQUAL)
    whole = ("accuracy", "balanced_accuracy", "recall/mel", "precision/nv", "auroc/mel", "auroc/nv")
    assert {found[name] for name in whole} == {Figure(1, 1, 1)}
    levels = {name for name in found if name.startswith("melanoma")}
    assert levels == {f"melanoma_sensitivity_at_specificity/{level}" for level in ("0.8", "0.9", "0.95")}
    assert {found[name] for name in levels} == {Figure(1, 1, 1)}
    assert found["expected_calibration_error"].value == pytest.approx(0.39)


def test_classes_without_images_or_with_all_of_them_have_no_area() -> None:
    found = scoring.measure(FOUR, np.array([4, 4, 5, 5]), EQUAL)
    assert {name for name in found if name.startswith("auroc")} == {"auroc/mel", "auroc/nv"}
    alone = scoring.measure(FOUR, np.array([4, 4, 4, 4]), EQUAL)
    assert not {name for name in alone if name.startswith(("auroc", "melanoma"))}
    assert alone["recall/mel"] == Figure(0.5, 0.5, 0.5)


def test_figures_by_convention_are_named_and_so_are_averages_that_hold_them() -> None:
    names = scoring.find_undefined(FOUR, np.array([4, 4, 4, 5]))
    assert {"recall/akiec", "precision/df", "f1/vasc", "macro_recall", "macro_precision", "macro_f1"} <= names
    assert not names & {"recall/mel", "recall/nv", "precision/mel", "f1/nv", "weighted_recall", "weighted_precision"}
    unseen = scoring.find_undefined(FOUR, np.array([4, 4, 5, 6]))
    assert "precision/vasc" in unseen and "weighted_precision" in unseen
    assert not unseen & {"recall/vasc", "f1/vasc", "weighted_recall", "weighted_f1"}


def test_draws_without_a_class_say_nothing_about_its_rates() -> None:
    weights = np.array([[1.0, 1, 1, 1], [0, 0, 2, 2]])
    found = scoring.measure(FOUR, np.array([4, 5, 5, 5]), weights)
    assert found["recall/mel"] == Figure(1, 1, 1), "the second draw has no melanoma"
    assert found["recall/nv"].value == pytest.approx(2 / 3)
    assert found["recall/nv"].high == pytest.approx(2 / 3 + 0.975 / 3)


def test_support_counts_the_images_of_each_class() -> None:
    assert scoring.count_support(np.array([4, 4, 5])) == {
        "akiec": 0, "bcc": 0, "bkl": 0, "df": 0, "mel": 2, "nv": 1, "vasc": 0,
    }  # fmt: skip


def test_rates_of_many_tables_are_those_of_each() -> None:
    tables = np.random.default_rng(4).integers(0, 9, (5, 7, 8)).astype(float)
    many, measured = scoring.compute_rates(tables), scoring.find_defined(tables)
    for at, table in enumerate(tables):
        for name, value in scoring.compute_rates(table).items():
            assert many[name][at] == pytest.approx(value), name
        for name, is_measured in scoring.find_defined(table).items():
            assert np.array_equal(measured[name][at], is_measured)


def test_rates_of_one_image_that_is_wrong_are_0() -> None:
    table = scoring.count_confusions(np.array([5]), np.array([4]))
    found = scoring.compute_rates(table)
    assert (found["recall"][4], found["precision"][5], found["f1"][4], found["f1"][5]) == (0, 0, 0, 0)
    assert found["recall"][5] == found["precision"][4] == 1, "by convention"


def test_a_tie_decides_for_no_class_and_stands_in_the_last_column() -> None:
    tied = np.array([[0.4, 0.4, 0.2, 0, 0, 0, 0]])
    assert scoring.decide(tied) == [scoring.UNDECIDED] == [7]
    assert scoring.count_confusions(scoring.decide(tied), np.array([0]))[0, 7] == 1


def test_confidence_falls_into_fifteen_equal_bins_and_1_into_the_last() -> None:
    confidence = np.array([0.5, 1.0, 14 / 15 - 1e-9, 14 / 15 + 1e-9, 0.2 + 1e-9])
    probabilities = np.column_stack([confidence, *[(1 - confidence) / 6] * 6])
    place, found, right = scoring.sort_into_bins(probabilities, np.array([0, 0, 0, 1, 0]))
    assert list(place) == [7, 14, 13, 14, 3]
    assert found == pytest.approx(confidence)
    assert list(right) == [True, True, True, False, True]


def test_the_sensitivity_for_melanoma_is_that_of_melanoma() -> None:
    probabilities = np.full((10, 7), 0.01)
    probabilities[:, 4] = [0.9, 0.8, 0.3, 0.7, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1]
    probabilities[:, 5] = 1 - probabilities[:, 4] - 0.05
    truth = np.array([4] * 3 + [5] * 7)
    found = scoring.measure(probabilities, truth, np.ones((2, 10)))
    assert found["melanoma_sensitivity_at_specificity/0.8"].value == 1
    assert found["melanoma_sensitivity_at_specificity/0.9"].value == pytest.approx(2 / 3)
    assert found["auroc/mel"].value == pytest.approx(20 / 21)


def test_draws_without_a_class_say_nothing_about_its_area() -> None:
    probabilities = np.full((4, 7), 0.01)
    probabilities[:, 4] = [0.8, 0.3, 0.5, 0.2]
    weights = np.array([[1.0, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2]])
    found = scoring.measure(probabilities, np.array([4, 4, 5, 5]), weights)
    assert found["auroc/mel"] == Figure(0.75, 0.75, 0.75)


def test_scores_state_every_figure_of_a_split() -> None:
    scored = scoring.score(FOUR, np.array([4, 5, 5, 5]))
    assert (scored.images, scored.accuracy) == (4, 0.75)
    assert scored.balanced_accuracy == pytest.approx(5 / 6)
    assert (scored.precision["mel"], scored.recall["nv"], scored.f1["mel"]) == pytest.approx((1 / 2, 2 / 3, 2 / 3))
    assert scored.macro_f1 == pytest.approx((5 + 2 / 3 + 4 / 5) / 7)


def test_a_rate_by_class_has_its_code_in_its_name() -> None:
    assert scoring.flatten({"accuracy": np.array(0.5), "f1": np.arange(7.0)}) == {
        "accuracy": 0.5, "f1/akiec": 0, "f1/bcc": 1, "f1/bkl": 2, "f1/df": 3, "f1/mel": 4, "f1/nv": 5, "f1/vasc": 6,
    }  # fmt: skip
