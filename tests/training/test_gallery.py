"""The augmentation shown."""

from PIL import Image

from tests.training import samples
from training import datasets, gallery


def test_a_sheet_an_animation_and_the_citation_are_written(tmp_path):
    made = samples.prepare(tmp_path)
    gallery.write(made, "published", tmp_path / "pixels", tmp_path / "out", frames=12)
    with Image.open(tmp_path / "out" / "augmentation-published.gif") as animation:
        assert animation.size == (3 * gallery.SIZE, 3 * gallery.SIZE)
        assert animation.n_frames == 12
        assert animation.info["duration"] == 100
    assert (tmp_path / "out" / "augmentation-published.png").stat().st_size > 10_000
    assert datasets.HAM10000.citation in (tmp_path / "out" / "LICENCE.txt").read_text()


def test_training_images_of_every_class_are_shown_in_turn(tmp_path):
    made = samples.prepare(tmp_path)
    entries, images = gallery._choose(made, 9, tmp_path / "pixels")
    assert [entry.diagnosis for entry in entries] == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "akiec", "bcc"]
    assert len({entry.lesion_id for entry in entries}) == 9
    assert {entry.split for entry in entries} == {"train"}
    assert len(images) == 9
