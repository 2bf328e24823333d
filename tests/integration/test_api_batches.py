"""Batches through the API: created, listed, polled, sealed, cancelled, retried, deleted."""

import uuid
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from dermq import batches, db, models
from dermq.lifecycle import ImageState
from dermq.models import Batch, Image
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import api, fakes, samples


def test_an_empty_batch_is_created_open(client: FlaskClient) -> None:
    answer = client.post(api.BATCHES, json={"name": " clinic ", "urgent": True, "metadata": {"study": "D-17"}})
    batch = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == api.url(batch) == batch["links"]["self"]
    assert (batch["name"], batch["state"], batch["urgent"]) == ("clinic", "open", True)
    assert batch["metadata"] == {"study": "D-17"}
    assert batch["refusals"] == []
    assert set(batch["counts"].values()) == {0}
    assert batch["eta_seconds"] is None and batch["images_per_second"] is None
    assert batch["created_at"].endswith("Z")


def test_the_status_has_the_documented_members(client: FlaskClient, bundle: object) -> None:
    batch = api.status(client, api.create(client))
    counts = ["received", "queued", "running", "done", "failed", "cancelled", "refused", "archives_open"]
    assert list(batch["counts"]) == counts
    assert set(batch["bundle"]) == {"name", "version", "sha256"}
    for link in ("self", "images", "refusals", "archives", "report_csv", "report_jsonl", "report_isic_csv"):
        assert client.get(batch["links"][link]).status_code == 200, link


def test_the_same_idempotency_key_creates_one_batch(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = client.post(api.BATCHES, json={"name": "a", "metadata": {"x": 1, "y": 2}}, headers=key)
    again = client.post(api.BATCHES, data=b'{"metadata": {"y": 2, "x": 1}, "name": "a"}', headers=key,
                        content_type="application/json")  # fmt: skip
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.get_json()["id"] == again.get_json()["id"]
    other = client.post(api.BATCHES, json={"name": "b"}, headers=key)
    api.assert_problem(other, 422, "idempotency_key_reused")
    assert len(client.get(api.BATCHES).get_json()["batches"]) == 1


def test_an_idempotency_key_belongs_to_its_lab(client: FlaskClient, stranger: FlaskClient) -> None:
    mine, theirs = (
        one.post(api.BATCHES, json={"name": "a"}, headers={"Idempotency-Key": "k"}).get_json()["id"]
        for one in (client, stranger)
    )
    assert mine != theirs


def test_a_bad_idempotency_key_is_a_problem(client: FlaskClient) -> None:
    answer = client.post(api.BATCHES, json={"name": "a"}, headers={"Idempotency-Key": "k" * 256})
    api.assert_problem(answer, 422, "bad_idempotency_key")


def test_batches_are_listed_newest_first_in_pages(client: FlaskClient, stranger: FlaskClient) -> None:
    made = [api.create(client, name=f"b{number}")["id"] for number in range(5)]
    api.create(stranger)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(api.BATCHES, query_string={"limit": 2, **({"cursor": cursor} if cursor else {})}).get_json()
        assert len(page["batches"]) <= 2
        seen += [batch["id"] for batch in page["batches"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]


def test_polling_with_the_etag_answers_304_until_something_changes(client: FlaskClient) -> None:
    batch = api.create(client)
    first = client.get(api.url(batch))
    assert first.headers["ETag"].startswith(f'"{batch["id"]}-')
    assert first.headers["Cache-Control"] == "no-store"
    asked = {"If-None-Match": first.headers["ETag"]}
    same = client.get(api.url(batch), headers=asked)
    assert (same.status_code, same.data) == (304, b"")
    api.put(client, batch, "a.jpg")
    assert client.get(api.url(batch), headers=asked).status_code == 200


def test_the_eta_lies_between_the_recent_and_the_smoothed_rate(client: FlaskClient, sessions: db.Sessions) -> None:
    batch = api.create(client)
    _set(sessions, batch["id"], received=110, queued=90, running=10, done=10, rate_recent=10.0, rate_smoothed=8.0)
    status = api.status(client, batch)
    assert status["images_per_second"] == 8.0
    assert status["eta_seconds"] == {"low": 10, "high": 13}


@pytest.mark.parametrize("kind", ["text", "number", "json"])
def test_sealing_takes_no_body_and_ignores_the_content_type(client: FlaskClient, kind: str) -> None:
    batch = api.create(client)
    types = {"text": "text/plain", "number": "application/x-www-form-urlencoded", "json": "application/json"}
    answer = client.post(api.url(batch, "/seal"), data=b"{not json", content_type=types[kind])
    assert answer.status_code == 200
    assert answer.get_json()["state"] == "finished"  # the batch is empty


def test_a_sealed_batch_takes_no_more_images(client: FlaskClient) -> None:
    batch = api.create(client)
    for _ in range(2):
        assert client.post(api.url(batch, "/seal")).status_code == 200
    api.assert_problem(api.put(client, batch, "a.jpg"), 409, "batch_sealed")
    archive = client.put(api.url(batch, "/archive"), data=samples.archive({"a.jpg": samples.jpeg()}))
    api.assert_problem(archive, 409, "batch_sealed")
    assert api.status(client, batch)["counts"]["refused"] == 0


def test_cancelling_stops_what_waits(client: FlaskClient) -> None:
    batch = api.create(client)
    api.put(client, batch, "a.jpg")
    for _ in range(2):
        answer = client.post(api.url(batch, "/cancel"))
        assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")
        assert answer.get_json()["counts"]["cancelled"] == 1
    api.assert_problem(api.put(client, batch, "b.jpg"), 409, "batch_cancelled")
    api.assert_problem(client.post(api.url(batch, "/seal")), 409, "batch_cancelled")
    api.assert_problem(client.post(api.url(batch, "/retry")), 409, "batch_cancelled")


def test_a_finished_batch_cannot_be_cancelled(client: FlaskClient) -> None:
    batch = api.create(client)
    client.post(api.url(batch, "/seal"))
    api.assert_problem(client.post(api.url(batch, "/cancel")), 409, "batch_finished")


def test_a_retry_with_nothing_failed_is_a_conflict(client: FlaskClient, wakeups: fakes.Wakeups) -> None:
    batch = api.create(client)
    api.assert_problem(client.post(api.url(batch, "/retry")), 409, "nothing_failed")
    assert wakeups.sent == []


def test_a_retry_queues_what_failed_and_wakes_the_workers(
    client: FlaskClient, sessions: db.Sessions, wakeups: fakes.Wakeups
) -> None:
    batch = api.create(client)
    api.put(client, batch, "a.jpg")
    _fail(sessions, batch["id"])
    wakeups.sent.clear()
    answer = client.post(api.url(batch, "/retry"), content_type="text/plain")
    assert answer.status_code == 202
    assert answer.headers["Location"] == api.url(batch)
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["counts"] | {"queued": 1, "failed": 0} == answer.get_json()["counts"]
    assert wakeups.sent == [Queue.CLASSIFY]


def test_deleting_leaves_no_rows_and_no_files(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PAGE_IMAGES", 2)
    batch = api.create(client)
    for number in range(5):
        api.put(client, batch, f"{number}.jpg", samples.jpeg(number))
    api.put(client, batch, "a.txt", b"text")
    client.put(api.url(batch, "/archive"), data=samples.archive({"a.jpg": samples.jpeg()}))
    assert len(blobs.list(uuid.UUID(batch["id"]))) == 6
    assert client.delete(api.url(batch)).status_code == 204
    for table in (models.Batch, models.Image, models.Archive, models.Refusal, models.Prediction):
        counted = sa.select(sa.func.count()).select_from(table)
        assert db.read(sessions, lambda session, counted=counted: session.scalar(counted)) == 0, table
    assert blobs.list(uuid.UUID(batch["id"])) == []
    api.assert_problem(client.delete(api.url(batch)), 404, "no_batch")
    assert client.get(api.BATCHES).get_json()["batches"] == []


def _set(sessions: db.Sessions, batch_id: str, **values: object) -> None:
    update = sa.update(Batch).where(Batch.id == uuid.UUID(batch_id)).values(**values)
    db.transact(sessions, lambda session: session.execute(update) and None)


def _fail(sessions: db.Sessions, batch_id: str) -> None:
    """Fail every image of a batch, as a worker would."""
    update = (
        sa.update(Image)
        .where(Image.batch_id == uuid.UUID(batch_id))
        .values(state=ImageState.FAILED, error_code="damaged", error_detail="The file is damaged.")
    )
    db.transact(sessions, lambda session: session.execute(update) and None)
    _set(sessions, batch_id, queued=0, failed=Batch.received, sealed_at=datetime.now(UTC))
