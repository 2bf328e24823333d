"""The manifest: splits by lesion, and errors for images and metadata that do not match."""

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training import manifest

COLUMNS = ("image_id", "lesion_id", "dx", "dx_type", "age", "sex", "localization", "split")


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 15), (shade, 100, 80)).save(out, "PNG")
    return out.getvalue()


def row(image: str, lesion: str, dx: str = "nv", split: str = "train") -> tuple[str, ...]:
    return (image, lesion, dx, "histo", "50.0", "male", "back", split)


def write(folder: Path, rows: list[tuple[str, ...]], files: dict[str, bytes]) -> tuple[Path, dict[str, list[Path]]]:
    metadata, archive = folder / "metadata.csv", folder / "all.zip"
    with metadata.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    with zipfile.ZipFile(archive, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    return metadata, {"all": [archive]}


ROWS = [row("a", "L1"), row("b", "L1"), row("c", "L2", "mel", "test")]
FILES = {"deep/a.png": picture(1), "b.png": picture(2), "c.png": picture(3)}


def test_images_are_matched_with_their_metadata(tmp_path: Path) -> None:
    found = manifest.prepare(*write(tmp_path, ROWS, FILES))
    assert [(e.image_id, e.diagnosis, e.split, e.member) for e in found.entries] == [
        ("a", "nv", "train", "deep/a.png"),
        ("b", "nv", "train", "b.png"),
        ("c", "mel", "test", "c.png"),
    ]


def test_a_folder_is_read_as_an_archive_is(tmp_path: Path) -> None:
    metadata, archives = write(tmp_path, ROWS, FILES)
    for name, content in FILES.items():
        file = tmp_path / "downloads" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "downloads" / "ATTRIBUTION.txt").write_text("no image")
    found = manifest.prepare(metadata, {"all": [tmp_path / "downloads"]})
    assert found.entries == manifest.prepare(metadata, archives).entries
    assert dict(manifest.read_files([tmp_path / "downloads"])) == FILES


def test_a_manifest_reads_back_with_the_same_hash(tmp_path: Path) -> None:
    made = manifest.prepare(*write(tmp_path, ROWS, FILES))
    manifest.write(made, tmp_path / "data")
    assert manifest.read(tmp_path / "data") == made
    assert manifest.read(tmp_path / "data").sha256 == made.sha256


def test_the_hash_depends_on_the_files_but_not_on_their_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = manifest.prepare(*write(tmp_path / "one", ROWS, FILES))
    two = manifest.prepare(*write(tmp_path / "two", ROWS, FILES))
    other = manifest.prepare(*write(tmp_path / "two", ROWS, FILES | {"c.png": picture(4)}))
    assert one.sha256 == two.sha256 != other.sha256


@pytest.mark.parametrize(
    ("rows", "files", "code"),
    [
        pytest.param(ROWS, FILES | {"d.png": picture(9)}, "no_metadata", id="a file without metadata"),
        pytest.param([*ROWS, row("d", "L3")], FILES, "no_file", id="metadata without a file"),
        pytest.param([*ROWS, row("a", "L1")], FILES, "repeated", id="two rows of one image"),
        pytest.param(ROWS, FILES | {"a.png": picture(1)}, "repeated", id="two files of one image"),
        pytest.param([*ROWS[:2], row("c", "L1", split="test")], FILES, "leak", id="a lesion on two sides"),
        pytest.param(ROWS, FILES | {"c.png": picture(1)}, "leak", id="identical files on two sides"),
        pytest.param([*ROWS[:2], row("c", "L2", "wart")], FILES, "unknown_diagnosis", id="an unknown diagnosis"),
        pytest.param([*ROWS[:2], row("c", "L2", split="dev")], FILES, "unknown_split", id="an unknown split"),
        pytest.param(ROWS, FILES | {"c.png": b"text"}, "unsupported_format", id="a file that is no image"),
    ],
)
def test_what_does_not_match_is_refused(tmp_path: Path, rows: Any, files: Any, code: str) -> None:
    with pytest.raises(manifest.Mismatch) as refused:
        manifest.prepare(*write(tmp_path, rows, files))
    assert refused.value.code == code


def test_metadata_without_a_split_is_split_by_lesion_and_alike_in_any_order(shared: Path) -> None:
    rows = manifest.read_metadata(shared / "ham10000" / "metadata.csv")
    drawn = manifest.split_by_lesion(rows)
    again = manifest.split_by_lesion(rows[::-1])
    assert {r.image_id: r.split for r in drawn} == {r.image_id: r.split for r in again}
    sides: dict[str, set[str]] = {}
    for r in drawn:
        sides.setdefault(r.lesion_id, set()).add(r.split)
    assert all(len(found) == 1 for found in sides.values())
    share = sum(r.split == "test" for r in drawn) / len(drawn)
    assert 0.17 < share < 0.24


def test_the_given_split_of_ham10000_is_disjoint_by_lesion(shared: Path) -> None:
    rows = manifest.read_metadata(shared / "ham10000" / "metadata.csv")
    lesions = {split: {r.lesion_id for r in rows if r.split == split} for split in manifest.SPLITS}
    assert not lesions["train"] & lesions["test"]
    assert not lesions["train"] & lesions["val"]
    assert not lesions["val"] & lesions["test"]
    assert [sum(r.split == split for r in rows) for split in manifest.SPLITS] == [7155, 809, 2051]


def test_the_published_split_is_by_image_and_leaks(shared: Path) -> None:
    rows = manifest.read_metadata(shared / "ham10000" / "metadata.csv")
    whole = manifest.Manifest(
        tuple(manifest.Entry(**vars(r), source="full", member=f"{r.image_id}.jpg", sha256="") for r in rows),
        {"full": ["full.zip"]},
    )
    drawn = manifest.split_by_image(whole)
    assert [len(drawn.of("full", split)) for split in manifest.SPLITS] == [7213, 802, 2000]
    sides = [{entry.lesion_id for entry in drawn.of("full", split)} for split in ("train", "test")]
    assert len(sides[0] & sides[1]) > 300
    assert drawn == manifest.split_by_image(whole)
    assert drawn.sha256 != whole.sha256


def test_another_source_can_be_the_reference(tmp_path: Path) -> None:
    metadata, places = write(tmp_path, ROWS, FILES)
    made = manifest.prepare(metadata, places | {"again": places["all"]})
    assert made.reference == "all"
    assert made.with_reference("again").reference == "again"
    assert made.with_reference("again").sha256 == made.sha256
    with pytest.raises(manifest.Mismatch, match="there are all, again"):
        made.with_reference("sharp")
