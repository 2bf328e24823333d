"""Images of a batch as the API shows them, and the reports made from them."""

import csv
import io
import json
import math
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from dermq import bundles, db, taxonomy
from dermq.lifecycle import ImageState
from dermq.models import Batch, Image, Prediction
from dermq.storage.local import LocalStore
from dermq.storage.protocol import THUMBNAIL
from tests import api, samples
from web import listing
from web.reports import registry, rows, source

PROBABILITIES = (0.01, 0.02, 0.03, 0.04, 0.2, 0.65, 0.05)
DIAGNOSES = ("nv", "mel")
NOTE = {"code": "extra_bytes", "detail": "12 bytes follow the end of the image; they were left out."}


@pytest.fixture
def batch(client: FlaskClient, sessions: db.Sessions) -> dict[str, Any]:
    """A batch with two images done, one failed and one queued."""
    made = api.create(client, name="clinic")
    for number, name in enumerate(("visit/ISIC_1.jpg", "ISIC_2.tiff", "=cmd()_100%.jpg", "last.jpg")):
        assert api.put(client, made, name, samples.jpeg(number)).status_code == 202
    for position, diagnosis in enumerate(DIAGNOSES, start=1):
        db.transact(sessions, _finish, uuid.UUID(made["id"]), position, diagnosis)
    db.transact(sessions, _fail, uuid.UUID(made["id"]), 3)
    return made


def _finish(session: Session, batch_id: uuid.UUID, position: int, diagnosis: str) -> None:
    image = session.scalars(sa.select(Image).where(Image.batch_id == batch_id, Image.position == position)).one()
    row = session.get_one(Batch, batch_id)
    image.state, image.width, image.height = ImageState.DONE, 64, 48
    image.notes = [NOTE] if position == 1 else None
    row.queued, row.done, row.version = row.queued - 1, row.done + 1, row.version + 1
    session.add(
        Prediction(
            image_id=image.id,
            bundle_id=row.bundle_id,
            **dict(zip((f"p_{code}" for code in taxonomy.CODES), PROBABILITIES, strict=True)),
            diagnosis=diagnosis,
            confidence=0.65,
            entropy=1.1,
            ood_score=-3.25,
            out_of_distribution=False,
            engine="onnx",
            worker="w",
            milliseconds=1.0,
            predicted_at=datetime.now(UTC),
        )
    )


def _fail(session: Session, batch_id: uuid.UUID, position: int) -> None:
    image = session.scalars(sa.select(Image).where(Image.batch_id == batch_id, Image.position == position)).one()
    image.state, image.error_code, image.error_detail = ImageState.FAILED, "damaged", '@damaged, "really"\nso'
    row = session.get_one(Batch, batch_id)
    row.queued, row.failed = row.queued - 1, row.failed + 1


def _names(client: FlaskClient, batch: dict[str, Any], **query: object) -> list[str]:
    answer = client.get(api.url(batch, "/images"), query_string=query)
    assert answer.status_code == 200, answer.text
    return [image["name"] for image in answer.get_json()["images"]]


def test_each_image_comes_with_its_prediction_or_its_error(client: FlaskClient, batch: dict[str, Any]) -> None:
    done, _, failed, queued = client.get(api.url(batch, "/images")).get_json()["images"]
    prediction = done["prediction"]
    assert prediction["probabilities"] == dict(zip(taxonomy.CODES, PROBABILITIES, strict=True))
    assert math.isclose(sum(prediction["probabilities"].values()), 1)
    assert (prediction["diagnosis"], prediction["confidence"], prediction["out_of_distribution"]) == ("nv", 0.65, False)
    assert (done["error"], done["width"], done["height"], len(done["sha256"])) == (None, 64, 48, 64)
    assert (done["notes"], queued["notes"]) == ([NOTE], [])
    assert failed["prediction"] is None
    assert failed["error"]["code"] == "damaged"
    assert (queued["state"], queued["prediction"], queued["error"]) == ("queued", None, None)


def test_images_are_filtered(client: FlaskClient, batch: dict[str, Any]) -> None:
    assert _names(client, batch, state="done") == ["visit/ISIC_1.jpg", "ISIC_2.tiff"]
    assert _names(client, batch, diagnosis="mel") == ["ISIC_2.tiff"]
    assert _names(client, batch, name="isic") == ["visit/ISIC_1.jpg", "ISIC_2.tiff"]
    assert _names(client, batch, name="100%") == ["=cmd()_100%.jpg"]
    assert _names(client, batch, name="_1") == ["visit/ISIC_1.jpg", "=cmd()_100%.jpg"]
    assert _names(client, batch, name="%") == ["=cmd()_100%.jpg"]
    assert _names(client, batch, state="failed", diagnosis="nv") == []


@pytest.mark.parametrize("query", ["state=lost", "diagnosis=cold", "name=%00", "limit=1000"])
def test_a_bad_filter_is_a_problem(client: FlaskClient, batch: dict[str, Any], query: str) -> None:
    problem = api.assert_problem(client.get(api.url(batch, f"/images?{query}")), 422, "invalid_request")
    assert problem["errors"][0]["where"] == f"query.{query.partition('=')[0]}"


def test_images_come_in_pages_that_stay_put(client: FlaskClient, batch: dict[str, Any]) -> None:
    first = client.get(api.url(batch, "/images?limit=3")).get_json()
    api.put(client, batch, "more.jpg", samples.jpeg(9))
    rest = client.get(api.url(batch, "/images"), query_string={"cursor": first["next_cursor"]}).get_json()
    assert [image["position"] for image in first["images"]] == [1, 2, 3]
    assert [image["position"] for image in rest["images"]] == [4, 5]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("position", ["0", "5", "99999999999999999999", "-1", "x"])
def test_an_image_that_is_not_there_is_not_found(client: FlaskClient, batch: dict[str, Any], position: str) -> None:
    assert client.get(api.url(batch, f"/images/{position}")).status_code == 404


def test_a_thumbnail_is_not_found_until_a_worker_made_it(
    client: FlaskClient, batch: dict[str, Any], blobs: LocalStore
) -> None:
    image = client.get(api.url(batch, "/images/1")).get_json()
    api.assert_problem(client.get(image["links"]["thumbnail"]), 404, "no_thumbnail")
    blobs.put_thumbnail(uuid.UUID(batch["id"]), image["sha256"], samples.jpeg(7))
    assert image["sha256"] + THUMBNAIL in blobs.list(uuid.UUID(batch["id"]))
    with client.get(image["links"]["thumbnail"]) as answer:
        assert (answer.status_code, answer.content_type) == (200, "image/jpeg")
        assert answer.data == samples.jpeg(7)
        assert answer.headers["Cache-Control"] == "no-store"
        asked = {"If-None-Match": answer.headers["ETag"]}
    with client.get(image["links"]["thumbnail"], headers=asked) as again:
        assert (again.status_code, again.data) == (304, b"")


def test_the_csv_has_a_row_for_every_image(client: FlaskClient, batch: dict[str, Any], bundle: bundles.Bundle) -> None:
    answer = client.get(api.url(batch, "/report.csv"))
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.data.count(b"\r\n") == 5
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert tuple(rows[0]) == (
        "position", "file_name", "state", "diagnosis", "confidence", "entropy", "ood_score", "p_akiec", "p_bcc",
        "p_bkl", "p_df", "p_mel", "p_nv", "p_vasc", "error_code", "error_detail", "bundle", "notice",
        "notes",
    )  # fmt: skip
    assert [row["position"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["state"] for row in rows] == ["done", "done", "failed", "queued"]
    assert (rows[0]["diagnosis"], rows[0]["p_nv"], rows[0]["ood_score"]) == ("nv", "0.65", "-3.25")
    assert (rows[3]["diagnosis"], rows[3]["p_nv"]) == ("", "")
    assert {row["bundle"] for row in rows} == {f"{bundle.name} {bundle.version}"}
    assert {row["notice"] for row in rows} == {taxonomy.NOTICE}
    assert [row["notes"] for row in rows] == [NOTE["detail"], "", "", ""]


def test_no_cell_of_the_csv_is_a_formula(client: FlaskClient, batch: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(client.get(api.url(batch, "/report.csv")).text, newline="")))
    assert rows[2]["file_name"] == "'=cmd()_100%.jpg"
    assert rows[2]["error_detail"] == '\'@damaged, "really"\nso'


def test_the_jsonl_has_names_as_they_are(client: FlaskClient, batch: dict[str, Any]) -> None:
    answer = client.get(api.url(batch, "/report.jsonl"))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert tuple(lines[0]) == rows.COLUMNS
    assert lines[2]["file_name"] == "=cmd()_100%.jpg"
    assert (lines[0]["p_nv"], lines[3]["p_nv"]) == (0.65, None)
    assert {line["notice"] for line in lines} == {taxonomy.NOTICE}


def test_the_isic_csv_has_done_images_and_nothing_else(client: FlaskClient, batch: dict[str, Any]) -> None:
    lines = client.get(api.url(batch, "/report.isic.csv")).text.splitlines()
    assert lines == [
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
        "ISIC_1,0.20000000,0.65000000,0.02000000,0.01000000,0.03000000,0.04000000,0.05000000",
        "ISIC_2,0.20000000,0.65000000,0.02000000,0.01000000,0.03000000,0.04000000,0.05000000",
    ]


def test_isic_ids_are_unique_and_no_formulas(client: FlaskClient, sessions: db.Sessions) -> None:
    batch = api.create(client, name="clinic")
    for number, name in enumerate(("a/x.jpg", "b/x.jpg", "=cmd.jpg"), start=1):
        api.put(client, batch, name, samples.jpeg(number))
        db.transact(sessions, _finish, uuid.UUID(batch["id"]), number, "nv")
    rows = client.get(api.url(batch, "/report.isic.csv")).text.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["a/x", "b/x", "'=cmd"]


@pytest.mark.parametrize("ending", [report_format.ending for report_format in registry.FORMATS])
def test_the_report_of_an_unfinished_batch_says_so(
    client: FlaskClient, batch: dict[str, Any], sessions: db.Sessions, ending: str
) -> None:
    where = api.url(batch, f"/report.{ending}")
    disposition = f"attachment; filename=dermq-{batch['id']}"
    assert client.get(where).headers["Content-Disposition"] == f"{disposition}-partial.{ending}"
    client.post(api.url(batch, "/seal"))
    assert "-partial." in client.get(where).headers["Content-Disposition"]
    db.transact(sessions, _finish, uuid.UUID(batch["id"]), 4, "nv")
    finish = sa.update(Batch).values(finished_at=datetime.now(UTC))
    db.transact(sessions, lambda session: session.execute(finish) and None)
    assert client.get(where).headers["Content-Disposition"] == f"{disposition}.{ending}"


def test_every_format_has_its_link_its_call_and_its_button(
    app: APIFlask, client: FlaskClient, token: str, batch: dict[str, Any]
) -> None:
    links = api.status(client, batch)["links"]
    browser = app.test_client()
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/sign-in").text)
    assert csrf is not None
    browser.post("/sign-in", data={"csrf_token": csrf[1], "token": token})
    page = browser.get(f"/batches/{batch['id']}").text
    assert [name for name in links if name.startswith("report_")] == [one.key for one in registry.FORMATS]
    for report_format in registry.FORMATS:
        address = links[report_format.key]
        assert address == api.url(batch, f"/report.{report_format.ending}")
        answer = client.get(address)
        assert (answer.status_code, answer.mimetype) == (200, report_format.media_type)
        assert re.search(rf'href="{address}" download>{report_format.name}</a>', page)


def test_the_links_of_reports_stay_as_they_were(client: FlaskClient, batch: dict[str, Any]) -> None:
    links = api.status(client, batch)["links"]
    for name, ending in (("report_csv", "csv"), ("report_jsonl", "jsonl"), ("report_isic_csv", "isic.csv")):
        assert links[name] == api.url(batch, f"/report.{ending}")


def test_a_report_reads_pages_each_in_its_own_transaction(
    client: FlaskClient, batch: dict[str, Any], sessions: db.Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PAGE_IMAGES", 1)
    answer = client.get(api.url(batch, "/report.jsonl"), buffered=False)
    lines = iter(answer.response)
    next(lines)
    # No transaction is open while the client has not read the rest, so a writer need not wait and its change appears.
    db.transact(sessions, _finish, uuid.UUID(batch["id"]), 4, "nv")
    assert json.loads(list(lines)[-1])["state"] == "done"  # type: ignore[arg-type]


def test_a_report_of_a_batch_that_is_deleted_meanwhile_breaks_off(
    client: FlaskClient, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PAGE_IMAGES", 1)
    answer = client.get(api.url(batch, "/report.csv"), buffered=False)
    lines = iter(answer.response)
    next(lines)
    client.delete(api.url(batch))
    with pytest.raises(Exception, match="no batch"):
        list(lines)


def test_a_page_of_images_takes_its_bundle_from_the_batch(
    client: FlaskClient, batch: dict[str, Any], sessions: db.Sessions
) -> None:
    """A prediction by another bundle than the batch's is not shown."""

    def work(session: Session) -> list[Prediction | None]:
        row = session.get_one(Batch, uuid.UUID(batch["id"]))
        row.bundle_id += 1
        return [prediction for _, prediction in listing.list_images(session, row, limit=10).rows]

    with sessions.reading() as session, session.no_autoflush:
        assert work(session) == [None] * 4
        session.expire_all()
