"""Numbers as text for people."""

import pytest

from web.api.schemas import Seconds
from web.pages import wording


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


@pytest.mark.parametrize(
    ("low", "high", "words"), [(13, 23, "13 to 23 s"), (70, 300, "70 s to 5 min"), (121, 140, "about 2 min")]
)
def test_a_span_says_its_unit_once(low: int, high: int, words: str) -> None:
    assert wording.span(Seconds(low=low, high=high)) == words


@pytest.mark.parametrize(("name", "folder"), [("one.jpg", ""), ("visit-2/deeper/one.jpg", "visit-2/deeper/")])
def test_the_folder_of_a_name_stands_before_it(name: str, folder: str) -> None:
    assert wording.folder(name) == folder


@pytest.mark.parametrize(
    ("scopes", "words"),
    [
        ([], "nothing"),
        (["read"], "look"),
        (["submit", "read"], "look and submit images"),
        (["manage", "submit", "read"], "look, submit images and cancel, retry, delete and manage the lab"),
    ],
)
def test_scopes_are_told_in_words(scopes: list[str], words: str) -> None:
    assert wording.scope_words(scopes) == words


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5", "curl"),
        ("", "Unknown browser"),
    ],
)
def test_a_browser_has_a_name_that_people_know(agent: str, name: str) -> None:
    assert wording.browser_name(agent) == name
