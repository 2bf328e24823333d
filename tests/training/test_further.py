"""Further datasets: their metadata, their use only in training, and the rejection of HAM10000's images."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training import samples
from training import duplicates, manifest


def test_further_images_are_for_pretraining_alone(tmp_path: Path) -> None:
    made = samples.prepare(tmp_path, further=True)
    assert made.further == ["isic2019"]
    assert made.trained_on == ["tiny"]
    found = made.of("isic2019")
    assert {entry.split for entry in found} == {manifest.PRETRAIN}
    assert len(found) == 7
    assert (found[4].image_id, found[4].diagnosis, found[4].site) == ("new-mel", "mel", "head/neck")
    assert not any(made.of("isic2019", split) for split in manifest.SPLITS)


def test_the_small_source_of_originals_is_for_judging_alone(tmp_path: Path) -> None:
    made = manifest.Manifest((), {"full": [], "originals_600x450": [], "isic2019": []})
    assert made.trained_on == ["full"]


def test_an_image_of_ham10000_by_its_id_is_refused(tmp_path: Path) -> None:
    samples.prepare(tmp_path)
    folder = samples.prepare_further(tmp_path / "isic2019", "{code}-0")
    with pytest.raises(manifest.Mismatch, match=r"These image_ids .* in HAM10000: akiec-0") as refused:
        manifest.prepare(tmp_path / "metadata.csv", {"tiny": [tmp_path / "tiny.zip"], "isic2019": [folder]})
    assert refused.value.code == "overlap"


def test_a_lesion_of_ham10000_is_refused(tmp_path: Path) -> None:
    samples.prepare(tmp_path)
    folder = samples.prepare_further(tmp_path / "isic2019")
    file = folder / "metadata.csv"
    file.write_text(file.read_text().replace("new-mel,,", "new-mel,mel-0,"))
    with pytest.raises(manifest.Mismatch, match=r"These lesion_ids .* in HAM10000: mel-0"):
        manifest.prepare(tmp_path / "metadata.csv", {"tiny": [tmp_path / "tiny.zip"], "isic2019": [folder]})


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_image_of_ham10000_by_its_looks_is_refused(tmp_path: Path, mirrored: bool) -> None:
    samples.prepare(tmp_path)
    folder = samples.prepare_further(tmp_path / "isic2019")
    with zipfile.ZipFile(tmp_path / "tiny.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()} | {"nv-4.png": stored(lesion(1))}
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    again = lesion(1).transpose(Image.Transpose.FLIP_TOP_BOTTOM) if mirrored else lesion(1)
    again.resize((60, 60), Image.Resampling.BICUBIC).save(folder / "new-nv.png")
    with pytest.raises(manifest.Mismatch, match=r"near-duplicates of HAM10000: new-nv\.png is nv-4\.png\.") as refused:
        manifest.prepare(tmp_path / "metadata.csv", {"tiny": [tmp_path / "tiny.zip"], "isic2019": [folder]})
    assert refused.value.code == "overlap"


def lesion(seed: int) -> Image.Image:
    """Draw a dark blob on light skin, both of uneven brightness."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:90j, -1:1:120j]
    blob = sum(
        chance.uniform(20, 70) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.08)
        for y, x in chance.uniform(-0.4, 0.4, (5, 2))
    )
    blob += np.kron(chance.normal(0, 8, (15, 20)), np.ones((6, 6)))
    return Image.fromarray(np.clip(np.stack([210 - blob, 170 - blob, 150 - blob], axis=-1), 0, 255).astype(np.uint8))


def stored(image: Image.Image, **how: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **how)
    return out.getvalue()


def test_a_picture_is_found_again_squashed_compressed_and_mirrored_and_others_are_not() -> None:
    known = duplicates.compute_fingerprints((f"{seed}.jpg", stored(lesion(seed))) for seed in range(40))
    again = lesion(7).resize((84, 84)).transpose(Image.Transpose.ROTATE_180)
    new = [("again.jpg", stored(again, quality=60)), *((f"{seed}.jpg", stored(lesion(seed))) for seed in range(40, 80))]
    assert duplicates.find(known, duplicates.compute_fingerprints(new)) == [("7.jpg", "again.jpg")]
