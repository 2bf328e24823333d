"""The stream of batches is complete, repeatable and balanced; augmentation stays within its bounds."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dermq import imaging, taxonomy
from tests.training import samples
from training import augment, batches, manifest


@pytest.fixture
def stream(tmp_path: Path) -> Any:
    made = samples.prepare(tmp_path)
    return batches.make_stream(
        made, 16, tmp_path / "pixels", batch=4, images=None, class_balance=0.5, sharp_share=0.3, seed=1
    )


def test_every_step_of_an_epoch_is_run_once_and_in_order(stream: batches.Stream) -> None:
    with batches.make_executor(0) as executor:
        for first in (0, 3):
            ran = list(stream.run(2, first, executor))
            made = [stream.make(2, step) for step in range(first, stream.steps)]
            assert len(ran) == stream.steps - first
            assert all(np.array_equal(a[0], b[0]) for a, b in zip(ran, made, strict=True))


def test_other_processes_make_the_same_batches(stream: batches.Stream) -> None:
    with batches.make_executor(1) as executor:
        (images, truth), *_ = stream.run(0, stream.steps - 1, executor)
    expected = stream.make(0, stream.steps - 1)
    assert np.array_equal(images, expected[0])
    assert np.array_equal(truth, expected[1])


def test_only_training_images_are_drawn_and_all_of_them_in_turn(stream: batches.Stream) -> None:
    drawn = np.concatenate([stream.order(epoch) for epoch in range(3)])
    counts = np.bincount(drawn, minlength=28)
    assert len(counts) == len(stream.rows) == 28
    assert counts.min() == counts.max() == 3


def test_batches_show_the_class_that_they_name(stream: batches.Stream) -> None:
    images, truth = stream.make(0, 0)
    assert images.shape == (4, 16, 16, 3)
    assert images.dtype == np.uint8
    assert truth.shape == (4, 7)
    for image, shares in zip(images, truth, strict=True):
        shown = np.abs(np.array(samples.COLOURS) - image.mean(axis=(0, 1))).sum(axis=1)
        assert shares.max() == 1
        assert shown[shares.argmax()] < np.sort(shown)[3]


def test_mixup_blends_images_and_truth_by_the_same_share_in_half_of_the_batches() -> None:
    images, truth = np.stack([np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2, 3), np.uint8)]), np.eye(7)[:2]
    drawn = [batches.mix(images, truth, 1.0, np.random.default_rng(seed)) for seed in range(200)]
    for mixed, shares in drawn:
        assert mixed.dtype == np.uint8
        assert mixed.mean(axis=(1, 2, 3)) / 200 == pytest.approx(shares[:, 0], abs=0.004)
        assert shares.sum(axis=1) == pytest.approx(1)
    blended = np.mean([0 < shares[0, 0] < 1 for _, shares in drawn])
    assert 0.15 < blended < 0.35  # half of the batches; in half of these, an image is blended with itself
    chance = np.random.default_rng(0)
    same = batches.mix(images, truth, 0.0, chance)
    assert np.array_equal(same[0], images)
    assert chance.random() == np.random.default_rng(0).random()


def test_further_images_are_drawn_with_those_of_ham10000_all_through_one_small_size(tmp_path: Path) -> None:
    made = samples.prepare(tmp_path, further=True)
    settings: dict[str, Any] = {"batch": 4, "images": None, "class_balance": 0.5, "sharp_share": 0.3, "seed": 1}
    mixed = batches.make_stream(made, 16, tmp_path / "pixels", **settings, further=("isic2019",), through=8)
    plain = batches.make_stream(made, 16, tmp_path / "pixels", **settings)
    assert len(mixed.truth) == len(plain.truth) + 7
    assert [(row >= 0).tolist() for row in mixed.rows[[0, -1]]] == [[True, False], [False, True]]
    for path in mixed.sources:
        small = np.load(path)
        assert small.shape[1:] == (16, 16, 3)
        rebuilt = np.stack([imaging.squash(Image.fromarray(one[::2, ::2]), 16) for one in small])
        assert np.abs(rebuilt.astype(int) - small).mean() < 6
    assert not set(mixed.sources) & set(plain.sources)


def test_further_images_that_were_not_prepared_are_named(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch": 4, "images": None, "class_balance": 0.5, "sharp_share": 0.3, "seed": 1}
    with pytest.raises(manifest.Mismatch, match="isic2019"):
        batches.make_stream(samples.prepare(tmp_path), 16, tmp_path / "pixels", **settings, further=("isic2019",))


def test_an_image_cut_square_shows_its_middle_unsquashed() -> None:
    straight = augment.Bounds(angle_degrees=0, zoom=(1, 1), stretch=1, shear_degrees=0, shift=0)
    cut = dataclasses.replace(straight, cut_square=1.0)
    assert augment.draw_matrix(np.random.default_rng(0), straight)[:, :2] == pytest.approx(np.eye(2))
    assert augment.draw_matrix(np.random.default_rng(0), cut)[:, :2] == pytest.approx(np.diag([0.75, 1]))


@pytest.mark.parametrize(("balance", "expected"), [(0.0, [90, 10]), (0.5, [75, 25]), (1.0, [50, 50])])
def test_balance_moves_the_classes_shares_towards_equality(balance: float, expected: Any) -> None:
    truth = np.array([0] * 90 + [1] * 10)
    assert batches.divide(truth, 100, balance) == expected + [0] * (len(taxonomy.CODES) - 2)


def test_the_sources_are_drawn_alike_for_every_class() -> None:
    chance = np.random.default_rng(0)
    paths = [np.full((70, 2, 2, 3), shade, np.uint8) for shade in (0, 255)]
    drawn = batches.Stream((), np.array([[0, 0]]), np.array([0]), 1, 1, 0.5, 0.3, 1)
    sharp = np.mean([drawn._draw(paths, np.array([0, 0]), chance).max() == 255 for _ in range(2000)])
    none = [drawn._draw(paths, np.array([0, -1]), chance).max() for _ in range(50)]
    assert 0.26 < sharp < 0.34
    assert max(none) == 0


def test_an_image_is_augmented_alike_for_the_same_seed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first, again, other = (augment.augment(pixels, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_affine_map_stays_within_its_bounds() -> None:
    chance = np.random.default_rng(0)
    drawn = np.array([augment.draw_matrix(chance) for _ in range(2000)])
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(drawn[:, :, :2])))
    shift = np.abs(drawn[:, :, 2]).max()
    assert 0.87 <= zoom.min() < 0.875
    assert 1.345 < zoom.max() <= 1.35
    assert 0.079 < shift <= 0.08


def test_the_affine_map_turns_by_any_angle_and_stretches_and_shears_within_its_bounds() -> None:
    squash = np.diag([augment.ASPECT, 1.0])
    chance = np.random.default_rng(0)

    def drawn(**bounds: Any) -> NDArray[np.float64]:
        """Return maps of the unsquashed image, with all other changes turned off."""
        still: dict[str, Any] = {
            "angle_degrees": 0.0,
            "zoom": (1.0, 1.0),
            "stretch": 1.0,
            "shear_degrees": 0.0,
            "shift": 0.0,
        }
        allowed = augment.Bounds(**(still | bounds))
        maps = np.array([augment.draw_matrix(chance, allowed)[:, :2] for _ in range(2000)])
        unsquashed: NDArray[np.float64] = squash @ maps @ np.linalg.inv(squash)
        return unsquashed

    turns = drawn(angle_degrees=augment.BOUNDS.angle_degrees)
    angles = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert np.linalg.det(turns) == pytest.approx(1)
    assert angles.min() < -179 and angles.max() > 179
    assert np.histogram(angles, 8, (-180, 180))[0].min() > 180
    stretches = drawn(stretch=augment.BOUNDS.stretch)
    ratios = stretches[:, 0, 0] / stretches[:, 1, 1]
    assert 1 / 1.11 <= ratios.min() < 0.91 and 1.10 < ratios.max() <= 1.11
    leans = np.abs(np.degrees(np.arctan(drawn(shear_degrees=augment.BOUNDS.shear_degrees)[:, 0, 1])))
    assert 7.9 < leans.max() <= 8


def test_blur_sharpening_resolution_and_jpeg_quality_are_drawn_within_their_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blurs, sharpenings, sides, qualities = [], [], [], []
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    resize, save = Image.Image.resize, Image.Image.save
    blur, unsharp = ImageFilter.GaussianBlur, ImageFilter.UnsharpMask
    monkeypatch.setattr(ImageFilter, "GaussianBlur", lambda radius: blurs.append(radius) or blur(radius))
    monkeypatch.setattr(ImageFilter, "UnsharpMask", lambda *said: sharpenings.append(said[1]) or unsharp(*said))
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, way: sides.append(size[0]) or resize(self, size, way))
    monkeypatch.setattr(
        Image.Image,
        "save",
        lambda self, out, kind, quality: qualities.append(quality) or save(self, out, kind, quality=quality),
    )
    chance = np.random.default_rng(0)
    for _ in range(2000):
        assert augment.degrade(image, chance).size == image.size
    assert 0.3 <= min(blurs) < 0.32 and 1.18 < max(blurs) <= 1.2
    assert 40 <= min(sharpenings) <= 42 and 147 <= max(sharpenings) <= 150
    assert min(sides) == 20 and max(sides) == 40
    assert min(qualities) == 40 and max(qualities) == 95
    for drawn in (blurs, sharpenings, sides[::2]):
        assert 320 < len(drawn) < 480
    assert 900 < len(qualities) < 1100


def test_a_patch_covers_its_share_of_a_quarter_of_the_images() -> None:
    pixels = np.random.default_rng(1).integers(0, 100, (100, 100, 3), dtype=np.uint8)
    pixels[0, 0] = 255  # so that no pixel has the mean colour by chance
    chance = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        changed = augment.erase_patch(pixels.copy(), chance)
        mean = pixels.mean(axis=(0, 1)).astype(np.uint8)
        shares.append((changed == mean).all(axis=2).mean())
    painted = [share for share in shares if share > 0.005]
    assert 430 < len(painted) < 570
    assert 0.018 < min(painted) < 0.022 and 0.117 < max(painted) < 0.124


def test_a_map_that_does_nothing_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    same = augment.warp(Image.fromarray(pixels), np.array([[1.0, 0, 0], [0, 1, 0]]))
    assert np.array_equal(np.asarray(same), pixels)


def test_a_quarter_turn_keeps_the_true_shape_of_a_squashed_disc() -> None:
    size = 120
    y, x = np.mgrid[:size, :size]
    inside = ((x - 59.5) * augment.ASPECT) ** 2 + (y - 59.5) ** 2 < 30**2
    disc = Image.fromarray((inside[..., None] * np.full(3, 255)).astype(np.uint8))
    squash = np.diag([augment.ASPECT, 1.0])
    turn = np.linalg.inv(squash) @ np.array([[0.0, -1.0], [1.0, 0.0]]) @ squash
    turned = np.asarray(augment.warp(disc, np.column_stack([turn, [0, 0]])))
    assert (turned[..., 0] > 127).sum() == pytest.approx(inside.sum(), rel=0.01)
    assert np.mean((turned[..., 0] > 127) == inside) > 0.99


def test_colours_change_within_their_bounds() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    chance = np.random.default_rng(0)
    means = np.array([augment.change_colour(grey, chance).mean(axis=(0, 1)) for _ in range(300)])
    assert 100 * 0.8 * 0.92 - 1 <= means.min() < 85
    assert 115 < means.max() <= 100 * 1.2 * 1.08 + 1


def test_the_published_augmentation_shifts_up_to_a_fifth_and_fills_from_the_nearest() -> None:
    size = 100
    marked = np.zeros((size, size, 3), np.uint8)
    marked[45:55, 45:55] = 255
    centres = []
    for seed in range(60):
        changed = augment.augment_as_published(marked, np.random.default_rng(seed))
        rows, columns = np.nonzero(changed[..., 0] > 127)
        centres.append((rows.mean(), columns.mean()))
    furthest = np.abs(np.array(centres) - 49.5).max()
    assert 17 < furthest <= 20.6
    bar = np.zeros((size, size, 3), np.uint8)
    bar[:, 45:55] = 255
    for seed in range(60):  # a shear of 0.2 degrees moves the ends of a bar by a third of a pixel
        bright = augment.augment_as_published(bar, np.random.default_rng(seed))[..., 0] / 255.0
        middles = (bright * np.arange(size)).sum(axis=1) / bright.sum(axis=1)
        assert np.ptp(middles) < 100 * np.tan(np.radians(0.2)) + 0.05
    edge = np.full((8, 8, 3), 7, np.uint8)
    assert (augment.augment_as_published(edge, np.random.default_rng(0)) == 7).all()
