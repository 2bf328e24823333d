"""The ZIP files of ``../shared/cases``, from the life of labs: each has the right names, counts and reasons."""

import csv
import io
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from dermq import db
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Refusal
from tests import api, fakes
from tests.integration.test_unpack import batch, get, runtime, store
from worker.classify import pipeline
from worker.classify.runtime import ClassifyRuntime
from worker.intake import unpack

__all__ = ["batch", "runtime"]

ODD = [
    *("=1+1.jpg", "a,b.jpg", 'q"uote.jpg', "007.jpg", "-5.jpg", "1e5.jpg", " lead.jpg", "trail .jpg", "semi;colon.jpg"),
    *("it's.jpg", "a\u200bzero.jpg", "rtl\u202egpj.exe", "2024-01-02.jpg", "MAR1.jpg", "#1.jpg", "100%.jpg", "a?b.jpg"),
    *("a&b.jpg", "<b>.jpg", "CON.jpg", "emoji😀.jpg", "noext", "two..dots.jpg", "…", ".hidden.jpg", "+49.jpg"),
    *("@x.jpg", "line\u2028sep.jpg", "＝full.jpg"),
]

NAMES = {
    "mac_finder_utf8_noflag": ["Läsion/Bild ä.jpg"],
    "win_cp932": ["患者/ほくろ表.jpg", "患者/ソ.jpg"],
    "powershell51_backslash": ["set/a/1.jpg", "set/b/1.jpg"],
    "name_mismatch_slash": ["a/1.jpg"],
    "pk00_marker": ["1.jpg"],
    "hidden_and_junk": ["1.jpg"],
    "same_base_nested": ["p1/lesion.jpg", "p2/lesion.jpg", "p2/lesion.png", "0012.jpg", "p3/lesion.v2.jpg"],
    "four_same_names": ["1.jpg"],
    "names_odd": ODD,
}
REFUSED = {"four_same_names": ["1.jpg"] * 3, "names_odd": ["a\\nb.jpg", "a\\tb.jpg"]}
SKIPPED = {
    "mac_finder_utf8_noflag": ["__MACOSX/Läsion/._Bild ä.jpg"],
    "powershell51_backslash": ["set/", "set/empty/"],
    "hidden_and_junk": [
        *("._1.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "Desktop.ini", "@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg"),
        *("metadata.csv", "readme.txt", ".Spotlight-V100/x", "ATTRIBUTION.txt", "Icon\\r"),
    ],
}


@pytest.fixture
def cases(shared: Path) -> Path:
    return shared / "cases"


def take(runtime: ClassifyRuntime, batch: Batch, cases: Path, name: str) -> Archive:
    archive = store(runtime, batch, (cases / f"{name}.zip").read_bytes())
    unpack.drain(runtime)
    return get(runtime, archive)


@pytest.mark.parametrize("name", NAMES)
def test_a_case_arrives_with_the_right_names_and_counts(
    runtime: ClassifyRuntime, batch: Batch, cases: Path, name: str
) -> None:
    found = take(runtime, batch, cases, name)
    assert found.state is ArchiveState.DONE
    assert [image.name for image in fakes.images(runtime.sessions, batch)] == NAMES[name]
    rows = sa.select(Refusal.name).where(Refusal.batch_id == batch.id).order_by(Refusal.name)
    refused = REFUSED.get(name, [])
    assert db.read(runtime.sessions, lambda session: list(session.scalars(rows))) == refused
    assert found.refused == fakes.get(runtime.sessions, batch).refused == len(refused)
    assert (found.skipped, found.skipped_names) == (len(SKIPPED.get(name, [])), SKIPPED.get(name, []))


def test_every_zip_of_the_cases_is_tested(cases: Path) -> None:
    assert {path.stem for path in cases.glob("*.zip")} == set(NAMES)


def test_names_in_another_encoding_are_right_when_it_is_given(
    client: FlaskClient, runtime: ClassifyRuntime, cases: Path
) -> None:
    made = api.create(client)
    data = (cases / "win_cp932.zip").read_bytes()
    assert client.put(api.url(made, "/archive?encoding=cp932"), data=data).status_code == 202
    unpack.drain(runtime)
    shown = client.get(api.url(made, "/images")).get_json()["images"]
    assert [image["name"] for image in shown] == NAMES["win_cp932"]
    assert client.get(api.url(made, "/archives")).get_json()["archives"][0]["encoding"] == "cp932"


def test_an_encoding_that_is_not_known_is_refused(client: FlaskClient) -> None:
    made = api.create(client)
    answer = client.put(api.url(made, "/archive?encoding=rot13"), data=b"PK")
    assert answer.status_code == 422 and "cp932" in answer.text
    assert api.status(client, made)["counts"]["archives_open"] == 0


@pytest.mark.parametrize("name", ["same_base_nested", "names_odd"])
def test_images_of_different_names_have_different_ids_in_the_isic_csv(
    client: FlaskClient, runtime: ClassifyRuntime, cases: Path, name: str
) -> None:
    made = api.create(client)
    assert client.put(api.url(made, "/archive"), data=(cases / f"{name}.zip").read_bytes()).status_code == 202
    unpack.drain(runtime)
    pipeline.drain(runtime)
    rows = list(csv.DictReader(io.StringIO(client.get(api.url(made, "/report.isic.csv")).text)))
    ids = [row["image"] for row in rows]
    assert len(ids) == len(set(ids)) == len(NAMES[name])
    if name == "same_base_nested":
        assert ids == ["p1/lesion", "p2/lesion.jpg", "p2/lesion.png", "0012", "lesion.v2"]
    assert not [one for one in ids if one.startswith(("=", "+", "-", "@"))], "no spreadsheet takes a cell for a formula"
