"""The commands, from archives to a bundle whose measured figures equal its card's."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermq import bundles
from tests.training import samples
from training import __main__ as commands
from training import agreement, decision, manifest, runs


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a command on the tiny dataset, in an empty folder, and returns its exit status."""
    samples.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: commands.main([*arguments])


def test_from_archives_to_a_bundle(
    training: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training("prepare", "--metadata", "metadata.csv", "tiny.zip") == 0
    assert training("train", "smoke") == 0
    assert training("train", "smoke") == 1
    assert "--resume" in capsys.readouterr().err
    assert training("export", "smoke", "--name", "tiny", "--version", "1", "--current") == 0
    bundle = bundles.find_current(Path("bundles"))
    bundles.verify_files(bundle)
    card = bundle.card
    assert (card.name, card.version, card.input_size) == ("tiny", "1", 32)
    assert card.training_data.images == {"train": 28, "val": 7, "test": 7}
    assert card.training_data.sha256 == manifest.read(Path("runs/data")).sha256
    assert card.config["plan"]["batch"] == 8
    assert card.wall_seconds == runs.read_record(Path("runs/smoke"))["wall_seconds"] > 0
    assert card.decision is not None and card.decision.tau in decision.TAUS
    assert training("evaluate") == 0
    assert training("score", "smoke") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\| published \| 0.843 \| 0.73 .*\n\| smoke on test \| 0\.", printed, re.M)
    scored = re.findall(r"^\| smoke on test \| (.+)$", printed, re.M)
    assert Path("out/smoke-on-test/assessment.json").exists()
    assert training("judge", "bundles/tiny-1", "smoke") == 0
    judged = re.findall(r"^\| (.+) \| (tiny|mean over sources) \| 7? ?\| (0|1|2)", capsys.readouterr().out, re.M)
    assert [row[:2] for row in judged] == [
        (name, source) for name in ("tiny-1", "smoke") for source in ("tiny", "mean over sources")
    ]
    assert training("agreement") == 0
    changes = re.findall(r"^\| ([a-z].+) \| 7 \| [01]\.\d{3} \| 0\.\d{3} \|$", capsys.readouterr().out, re.M)
    assert changes == list(agreement.CHANGES)
    assert training("soup", "smoke", "smoke") == 0
    assert training("score", "soup-smoke-smoke") == 0
    mean = re.findall(r"^\| soup-smoke-smoke on test \| (.+)$", capsys.readouterr().out, re.M)
    assert len(mean) == 1 and mean == scored, "the mean of a network and itself is that network"
    assert training("curves", "smoke", "smoke") == 0
    with Image.open("out/curves-smoke-smoke.png") as figure:
        assert figure.width > figure.height > 400
    assert np.load(bundle.path / bundles.GOLDEN)["probabilities"].shape == (8, 7)


def test_archives_of_one_name_are_one_source(
    training: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with zipfile.ZipFile("tiny.zip") as whole, zipfile.ZipFile("a.zip", "w") as a, zipfile.ZipFile("b.zip", "w") as b:
        for number, name in enumerate(whole.namelist()):
            (a, b)[number % 2].writestr(name, whole.read(name))
    assert training("prepare", "--metadata", "metadata.csv", "ham=a.zip", "ham=b.zip") == 0
    assert "ham: train 28, val 7, test 7" in capsys.readouterr().out
    assert training("prepare", "--metadata", "metadata.csv", "ham=a.zip") == 1


def test_a_card_that_states_other_figures_is_reported(
    training: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    training("prepare", "--metadata", "metadata.csv", "tiny.zip")
    shipped = bundles.find_current(samples.ROOT / "bundles")
    wrong = shipped.path.as_posix()
    assert training("evaluate", wrong) == 1
    assert "The card states other figures." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("train", "unheard-of"), "No configuration 'unheard-of'"),
        (("train", "smoke"), "run `python -m training prepare` first"),
        (("export", "smoke", "--version", "1"), "holds no finished epoch"),
        (("curves", "smoke"), "holds no finished epoch"),
        (("prepare", "--metadata", "metadata.csv", "absent.zip"), "absent.zip"),
    ],
)
def test_a_mistake_is_answered_in_a_line(
    training: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    assert training(*arguments) == 1
    assert text in capsys.readouterr().err


def test_a_run_for_comparison_becomes_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v2b0").mkdir()
    runs.write_record(tmp_path / "v2b0", {"size": 32, "config": {"backbone": "efficientnetv2b0"}})
    assert commands.main(["--runs", str(tmp_path), "--bundles", str(tmp_path), "export", "v2b0", "--version", "9"]) == 1
    assert "only efficientnetb1 can become a bundle" in capsys.readouterr().err
    assert not (tmp_path / "ham10000-b1-9").exists()
