"""Operating points reach their sensitivity on val, and are told with intervals."""

import numpy as np
import pytest

from dermq import taxonomy
from training import operating

MEL, NV, BCC = (taxonomy.CODES.index(code) for code in ("mel", "nv", "bcc"))


def predictions(melanoma: list[float], other: int = NV) -> np.ndarray:
    """Probabilities ``(n, 7)`` of melanoma, the rest for one other diagnosis."""
    found = np.zeros((len(melanoma), 7), np.float32)
    found[:, MEL] = melanoma
    found[:, other] = 1 - found[:, MEL]
    return found


def test_a_threshold_is_the_highest_that_reaches_its_sensitivity():
    truth = np.array([MEL] * 10 + [NV] * 4)
    said = predictions([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.85, 0.26, 0.15, 0.05])
    points = {point.name: point for point in operating.choose(said, truth)}
    first, second = (points[f"melanoma at sensitivity {level}"] for level in ("0.80", "0.90"))
    assert first.threshold == pytest.approx((0.3 + 0.26) / 2)
    assert second.threshold == pytest.approx((0.2 + 0.15) / 2)
    measured = operating.measure(first, said, truth, [str(number) for number in range(14)])
    assert (measured.images, measured.positive) == (14, 10)
    assert (measured.sensitivity.value, measured.specificity.value) == (0.8, 0.75)


def test_malignant_adds_up_what_is():
    truth = np.array([MEL, BCC, NV, NV])
    said = predictions([0.3, 0.3, 0.1, 0.1], other=NV)
    said[1, [BCC, NV]] = said[1, [NV, BCC]]
    points = {point.name: point for point in operating.choose(said, truth)}
    assert points["malignant at sensitivity 0.90"].diagnoses == ("akiec", "bcc", "mel")
    assert points["malignant at sensitivity 0.90"].threshold == pytest.approx(0.2)
    assert "melanoma at sensitivity 0.90" in points


def test_val_without_a_malignant_image_has_no_points():
    assert operating.choose(predictions([0.1, 0.2]), np.array([NV, NV])) == []


def test_images_of_one_lesion_are_one_witness():
    truth = np.array(([MEL] * 8 + [NV] * 8) * 4)
    said = predictions(([0.9] * 4 + [0.1] * 4 + [0.1] * 8) * 4)
    (point,) = [point for point in operating.choose(said, truth) if point.name == "melanoma at sensitivity 0.90"]
    point = operating.Point(point.name, point.diagnoses, 0.5)
    alone = operating.measure(point, said, truth, [str(number) for number in range(64)])
    few = operating.measure(point, said, truth, [str(number // 4) for number in range(64)])
    assert alone.sensitivity.value == few.sensitivity.value == 0.5
    assert few.sensitivity.high - few.sensitivity.low > 1.5 * (alone.sensitivity.high - alone.sensitivity.low)
