"""The descriptions of HAM10000, as published, and of the network."""

from pathlib import Path
from typing import Any

import pytest

from training import describe, manifest, model


@pytest.fixture(scope="module")
def subjects(shared: Path) -> Any:
    return manifest.read_metadata(shared / "ham10000" / "metadata.csv")


def test_the_description_reproduces_the_published_one(subjects: Any) -> None:
    found = describe.describe_dataset(subjects)
    assert (found.images, found.lesions, found.ages) == (10015, 7470, 9958)
    assert (round(found.age_mean, 2), int(found.age_deviation * 100) / 100) == (51.86, 16.96)
    assert found.sexes == {"male": 5406, "female": 4552, "unknown": 57}
    assert list(found.sites.items())[:5] == [
        *(("back", 2192), ("lower extremity", 2077), ("trunk", 1404)),
        *(("upper extremity", 1118), ("abdomen", 1022)),
    ]
    assert sum(found.sites.values()) == 10015
    assert found.confirmations == {
        "histopathology": 5340,
        "follow-up": 3704,
        "expert consensus": 902,
        "confocal microscopy": 69,
    }
    assert list(found.diagnoses.values()) == [327, 514, 1099, 115, 1113, 6705, 142]


def test_the_description_is_written_with_its_figures(subjects: Any, tmp_path: Path) -> None:
    text = describe.write_dataset(subjects, tmp_path)
    assert "51.864 ± 16.968 years for 9,958 images" in text
    assert "| unknown | 234 | 2.3% |" in text
    assert {path.name for path in tmp_path.iterdir()} == {"dataset.md", "dataset.png", "body-sites.png", "ages.png"}


def test_the_networks_table_adds_up(tmp_path: Path) -> None:
    network = model.build_network(64, "none")
    describe.write_model(network, tmp_path)
    found = describe.list_stages(network)
    assert sum(stage.parameters for stage in found) == network.count_params() == 6_584_206
    assert [stage.name for stage in found][:3] == ["input", "stem", "block1a"]
    assert len([stage for stage in found if stage.name.startswith("block")]) == 23
    assert found[1].output == "32 x 32 x 32"
    assert {path.name for path in tmp_path.iterdir()} == {"model.md", "model.png"}
