"""A bundle is judged on what a worker would show it: images decoded by the recipe of its card."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dermq import bundles, imaging
from tests import samples, variants
from training import agreement, graph_outputs, judge, manifest, onnx_run

IMAGE = variants.profiled(samples.picture(64, 48))["PNG of wide RGB"]


@pytest.fixture
def one_image(tmp_path: Path) -> manifest.Manifest:
    """A manifest of one image of val, whose colours the versions of the recipe read differently."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "nv-1.png").write_bytes(IMAGE)
    columns = "image_id,lesion_id,dx,dx_type,age,sex,localization,split"
    (tmp_path / "metadata.csv").write_text(f"{columns}\nnv-1,lesion,nv,histo,40,female,back,val\n")
    return manifest.prepare(tmp_path / "metadata.csv", {"tiny": [tmp_path / "tiny"]})


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint8]]:
    """What the graph is asked to predict."""
    found: list[NDArray[np.uint8]] = []

    def run(graph: object, images: NDArray[np.uint8], **options: Any) -> dict[str, NDArray[np.float32]]:
        found.append(np.asarray(images))
        return {graph_outputs.PROBABILITIES: np.full((len(images), 7), 1 / 7, np.float32)}

    monkeypatch.setattr(onnx_run, "open_session", lambda path: path)
    monkeypatch.setattr(onnx_run, "run", run)
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_agreement_decodes_by_the_recipe_of_the_card(
    tmp_path: Path, one_image: manifest.Manifest, shown: list[NDArray[np.uint8]], version: int
) -> None:
    agreement.measure(tmp_path, 32, one_image, recipe_version=version)
    assert np.array_equal(shown[0][0], imaging.prepare(IMAGE, 32, recipe_version=version))


@pytest.mark.parametrize("version", [1, 2])
def test_judge_decodes_by_the_recipe_of_the_card(
    tmp_path: Path, bundle: bundles.Bundle, one_image: manifest.Manifest, shown: list[NDArray[np.uint8]], version: int
) -> None:
    recipe = bundle.card.recipe.model_copy(update={"version": version})
    made = dataclasses.replace(bundle, card=bundle.card.model_copy(update={"recipe": recipe}))
    judge.judge_bundle(made, one_image, tmp_path / "pixels")
    expected = imaging.prepare(IMAGE, bundle.card.input_size, recipe_version=version)
    assert np.array_equal(shown[0][0], expected)
    other = imaging.prepare(IMAGE, bundle.card.input_size, recipe_version=3 - version)
    assert not np.array_equal(expected, other)
