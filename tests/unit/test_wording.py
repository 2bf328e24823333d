"""Figures in words."""

import pytest

from web import wording


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (279_813, "280 kB"),
        (28_183_509, "28.2 MB"),
        (4_000_000_000, "4 GB"),
    ],
)
def test_sizes_have_decimal_units(count: int, words: str) -> None:
    assert wording.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "1 s"), (119, "119 s"), (150, "2 min"), (7_200, "2 h"), (200_000, "2 days")]
)
def test_durations_have_the_unit_that_reads_best(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words
