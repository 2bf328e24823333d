"""The assessment: intervals by lesion, groups, and the files that are written."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermq import scoring, taxonomy
from training import assess, calibrate, tables
from training.manifest import Entry

TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def entries() -> Any:
    """Entries of 240 images of 120 lesions, of every class; some have no age."""
    return [
        Entry(
            image_id=f"image-{n}",
            lesion_id=f"lesion-{n // 2}",
            diagnosis=taxonomy.CODES[n // 2 % 7],
            confirmation="histo",
            age="" if n < 6 else str(float(n % 90)),
            sex=("male", "female")[n // 2 % 2],
            site="back",
            split="test",
            source="tiny",
            member=f"{n}.jpg",
            sha256="",
        )
        for n in range(240)
    ]


@pytest.fixture(scope="module")
def probabilities(entries: Any) -> Any:
    truth = [taxonomy.CODES.index(entry.diagnosis) for entry in entries]
    logits = np.random.default_rng(0).normal(size=(240, 7)) + 2 * np.eye(7)[truth]
    return calibrate.apply_softmax(logits / TEMPERATURE)


@pytest.fixture(scope="module")
def found(probabilities: Any, entries: Any) -> Any:
    return assess.assess(probabilities, entries, TEMPERATURE, draws=200)


def test_images_of_one_lesion_are_drawn_together() -> None:
    weights = assess.draw_lesions(["a", "b", "a", "c"], 50, seed=1)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert not np.array_equal(weights[:, 0], weights[:, 1])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_intervals_hold_their_values_and_are_wider_for_fewer_images(found: Any) -> None:
    for figure in found.figures.values():
        assert figure.low <= figure.value <= figure.high
    width = {name: figure.high - figure.low for name, figure in found.figures.items()}
    assert width["recall/mel"] > width["accuracy"] > 0


def test_repeated_images_of_a_lesion_add_no_certainty(probabilities: Any, entries: Any) -> None:
    once = assess.assess(probabilities[::2], entries[::2], TEMPERATURE, draws=300).figures["accuracy"]
    twin = [entry for entry in entries[::2] for _ in range(2)]
    twice = assess.assess(np.repeat(probabilities[::2], 2, axis=0), twin, TEMPERATURE, draws=300).figures["accuracy"]
    assert (twice.value, twice.low, twice.high) == (once.value, once.low, once.high)


def test_every_image_is_in_one_group_of_each_trait(found: Any) -> None:
    for trait in assess.TRAITS:
        assert sum(group.images for group in found.groups if group.trait == trait) == found.images
    unknown = next(group for group in found.groups if (group.trait, group.value) == ("age", "unknown"))
    assert unknown.images == 6


def test_a_group_has_every_figure_of_the_whole(found: Any) -> None:
    male = next(group for group in found.groups if (group.trait, group.value) == ("sex", "male"))
    assert set(male.figures) == set(found.figures)
    assert sum(male.support.values()) == male.images
    assert male.figures["recall/mel"].low <= male.figures["recall/mel"].value < 1
    assert male.figures["recall/mel"].high < 1


def test_a_group_of_all_images_has_the_figures_of_the_whole(found: Any) -> None:
    [back] = [group for group in found.groups if group.trait == "body site"]
    assert back.figures == found.figures


def test_figures_that_a_group_does_not_define_are_left_out(found: Any) -> None:
    unknown = next(group for group in found.groups if (group.trait, group.value) == ("age", "unknown"))
    assert [code for code, images in unknown.support.items() if images] == list(taxonomy.CODES[:3])
    assert {"recall/mel", "auroc/mel", "macro_recall", "melanoma_sensitivity_at_specificity/0.9"}.isdisjoint(
        unknown.figures
    )
    assert {"accuracy", "recall/akiec", "auroc/akiec", "expected_calibration_error"} <= set(unknown.figures)


def test_the_calibration_before_is_that_without_the_temperature(found: Any, probabilities: Any, entries: Any) -> None:
    truth = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    undone = calibrate.apply_softmax(TEMPERATURE * np.log(probabilities))
    before = found.figures["expected_calibration_error_before"].value
    assert before == pytest.approx(float(scoring.measure_calibration_error(undone, truth)))
    assert before != found.figures["expected_calibration_error"].value


@pytest.mark.parametrize(
    ("age", "band"),
    [("0.0", "0 to 29"), ("29.9", "0 to 29"), ("30", "30 to 44"), ("85.0", "75 and older"), ("", "unknown")],
)
def test_ages_fall_into_bands(age: str, band: str) -> None:
    assert assess.find_age_band(age) == band


def test_an_assessment_is_written_down_whole(found: Any, probabilities: Any, entries: Any, tmp_path: Path) -> None:
    images = np.zeros((240, 8, 8, 3), np.uint8)
    tables.write(found, probabilities.astype(np.float32), entries, images, "tiny 1 on test", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("assessment.md", "assessment.json", "predictions.csv"),
        *("per-class.png", "confusion.png", "roc.png", "reliability.png", "worst.png"),
    }
    text = (tmp_path / "assessment.md").read_text()
    assert taxonomy.NOTICE in text
    assert str(found.figures["recall/mel"]) in text
    male = next(group for group in found.groups if group.value == "male")
    assert f"| sex | male | mel | {male.support['mel']} | {male.figures['precision/mel']}" in text
    assert f"| sex | male | {male.images} | {male.figures['macro_precision']}" in text
    stored = json.loads((tmp_path / "assessment.json").read_text())
    assert stored["figures"]["accuracy"]["value"] == found.figures["accuracy"].value
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240
    assert float(rows[5]["mel"]) == pytest.approx(probabilities[5, 4], abs=1e-6)
