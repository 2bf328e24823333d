"""Creating a batch with files in one multipart request."""

import io
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import arrivals
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import api, fakes, samples
from tests.integration.conftest import with_token
from tests.integration.test_api_uploads import first_commit_fails


def test_files_are_received_and_refused_in_one_request(
    client: FlaskClient, wakeups: fakes.Wakeups, blobs: LocalStore
) -> None:
    files = [
        ("visit 1/a.jpg", samples.jpeg(1)),
        ("notes.txt", b"text"),
        ("visit 1/🔬 ä%2F..%2Fb.jpg", samples.jpeg(2)),
        ("../escape.jpg", samples.jpeg(3)),
        ("empty.jpg", b""),
        ('quo"te.jpg', samples.truncated_jpeg()),
    ]
    answer = api.send(client, files, urgent="true", metadata='{"study": "D-17"}')
    batch = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == api.url(batch)
    assert answer.headers["Retry-After"] == "1"
    assert (batch["state"], batch["urgent"], batch["metadata"]) == ("open", True, {"study": "D-17"})
    assert (batch["counts"]["received"], batch["counts"]["refused"]) == (3, 3)
    refused = {one["name"]: one["code"] for one in batch["refusals"]}
    assert refused == {"notes.txt": "unsupported_format", "../escape.jpg": "bad_name", "empty.jpg": "empty_file"}
    assert api.refusals(client, batch) == refused
    images = client.get(api.url(batch, "/images")).get_json()["images"]
    assert [image["name"] for image in images] == [files[0][0], files[2][0], files[5][0]]
    assert sorted(image["sha256"] for image in images) == blobs.list(uuid.UUID(batch["id"]))
    assert wakeups.sent == [Queue.CLASSIFY]
    assert not any((blobs.root / "incoming").glob("*"))


def test_two_files_with_one_name(client: FlaskClient) -> None:
    files = [("a.jpg", samples.jpeg(1)), ("a.jpg", samples.jpeg(1)), ("a.jpg", samples.jpeg(2))]
    batch = api.send(client, files).get_json()
    assert batch["counts"]["received"] == 1
    assert [one["code"] for one in batch["refusals"]] == ["name_taken"]


def test_a_request_that_seals_leaves_nothing_open(client: FlaskClient) -> None:
    batch = api.send(client, [("a.jpg", samples.jpeg())], seal="true").get_json()
    assert (batch["state"], batch["counts"]["queued"]) == ("queued", 1)
    api.assert_problem(api.put(client, batch, "b.jpg"), 409, "batch_sealed")


def test_a_form_without_files_creates_an_empty_batch(client: FlaskClient, wakeups: fakes.Wakeups) -> None:
    answer = api.send(client, [("", b"")])  # as a browser sends an empty file field
    assert (answer.status_code, answer.get_json()["counts"]["received"]) == (201, 0)
    assert wakeups.sent == []


def test_a_file_without_a_name_is_refused(client: FlaskClient) -> None:
    assert api.send(client, [("", samples.jpeg())]).get_json()["refusals"][0]["code"] == "bad_name"


def test_a_batch_over_its_limit_keeps_what_fits(make_app: Callable[..., APIFlask], token: str) -> None:
    client = with_token(make_app(max_images_per_batch=2), token)
    batch = api.send(client, [(f"{number}.jpg", samples.jpeg(number)) for number in range(4)]).get_json()
    assert batch["counts"]["received"] == 2
    assert [(one["name"], one["code"]) for one in batch["refusals"]] == [
        ("2.jpg", "batch_full"),
        ("3.jpg", "batch_full"),
    ]


def test_a_file_over_the_limit_spoils_no_other(make_app: Callable[..., APIFlask], token: str) -> None:
    client = with_token(make_app(max_image_bytes=5_000), token)
    files = [("a.jpg", samples.jpeg()), ("b.jpg", os.urandom(300_000)), ("c.jpg", samples.jpeg(1))]
    batch = api.send(client, files).get_json()
    assert batch["counts"]["received"] == 2
    assert [(one["name"], one["code"]) for one in batch["refusals"]] == [("b.jpg", "image_too_large")]


def test_too_many_files_create_no_batch(make_app: Callable[..., APIFlask], token: str, blobs: LocalStore) -> None:
    client = with_token(make_app(max_files_per_request=3), token)
    answer = api.send(client, [(f"{number}.jpg", samples.jpeg(number)) for number in range(4)])
    problem = api.assert_problem(answer, 413, "too_many_files")
    assert "3 files" in problem["detail"]
    assert client.get(api.BATCHES).get_json()["batches"] == []
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_request_over_the_limit_of_an_archive_creates_no_batch(make_app: Callable[..., APIFlask], token: str) -> None:
    client = with_token(make_app(max_archive_bytes=5_000), token)
    body = api.multipart([("a.jpg", samples.jpeg()), ("b.jpg", os.urandom(100_000))], {"name": "batch"})
    kind = f"multipart/form-data; boundary={api.BOUNDARY}"
    for length in (len(body), None):
        announced = api.streamed(io.BytesIO(body), length)
        answer = client.post(api.BATCHES, content_type=kind, environ_overrides=announced)
        api.assert_problem(answer, 413, "request_entity_too_large")
    assert client.get(api.BATCHES).get_json()["batches"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": ""}, "invalid_request"),
        ({"seal": "perhaps"}, "invalid_request"),
        ({"colour": "red"}, "invalid_request"),
        ({"metadata": "{"}, "bad_field"),
        ({"metadata": "[" * 5000}, "bad_field"),
        ({"metadata": '{"a": NaN}'}, "bad_field"),
        ({"metadata": '{"a": "\\ud800"}'}, "bad_field"),
        ({"options": '"text"'}, "invalid_request"),
    ],
)
def test_a_bad_field_creates_no_batch(client: FlaskClient, fields: dict[str, Any], code: str) -> None:
    api.assert_problem(api.send(client, [("a.jpg", samples.jpeg())], **fields), 422, code)
    assert client.get(api.BATCHES).get_json()["batches"] == []


@pytest.mark.parametrize("cut", [10, 60, 100, 200])
def test_a_body_that_ends_early_creates_no_batch(client: FlaskClient, cut: int, blobs: LocalStore) -> None:
    whole = api.multipart([("a.jpg", samples.jpeg())], {"name": "batch"})
    kind = f"multipart/form-data; boundary={api.BOUNDARY}"
    answer = client.post(api.BATCHES, data=whole[:-cut], content_type=kind)
    api.assert_problem(answer, 400, "bad_request")
    announced = api.streamed(io.BytesIO(whole[:-cut]), len(whole))
    assert client.post(api.BATCHES, content_type=kind, environ_overrides=announced).status_code == 400
    assert client.get(api.BATCHES).get_json()["batches"] == []
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_form_without_a_boundary_is_a_problem(client: FlaskClient) -> None:
    answer = client.post(api.BATCHES, data=b"x", content_type="multipart/form-data")
    api.assert_problem(answer, 400, "bad_request")


def test_the_same_key_and_files_create_one_batch(client: FlaskClient, blobs: LocalStore) -> None:
    key = {"Idempotency-Key": "k1"}
    files = [("a.jpg", samples.jpeg(1)), ("b.txt", b"text")]
    first = api.send(client, files, headers=key, seal="true")
    again = api.send(client, files, headers=key, seal="true")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.get_json() == first.get_json()
    others = [
        api.send(client, [("a.jpg", samples.jpeg(2)), ("b.txt", b"text")], headers=key, seal="true"),
        api.send(client, [("c.jpg", samples.jpeg(1)), ("b.txt", b"text")], headers=key, seal="true"),
        api.send(client, [files[0]], headers=key, seal="true"),
        api.send(client, [files[0], ("c.txt", b"text")], headers=key, seal="true"),
        api.send(client, files, headers=key),
        client.post(api.BATCHES, json={"name": "batch"}, headers=key),
    ]
    for other in others:
        api.assert_problem(other, 422, "idempotency_key_reused")
    assert blobs.list_batches(older_than_seconds=0) == [uuid.UUID(first.get_json()["id"])]
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_creation_that_is_run_again_keeps_its_files(client: FlaskClient, app: APIFlask, blobs: LocalStore) -> None:
    client.get(api.BATCHES)  # the request writes the token's last use
    with first_commit_fails(app):
        batch = api.send(client, [("a.jpg", samples.jpeg())]).get_json()
    [image] = client.get(api.url(batch, "/images")).get_json()["images"]
    assert image["sha256"] in blobs.list(uuid.UUID(batch["id"]))


def test_files_are_closed_and_on_disk_before_the_next_is_read(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors: list[int] = []
    receive = arrivals.receive

    def watched(*arguments: object, **more: object) -> object:
        descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
        return receive(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(arrivals, "receive", watched)
    for count in (1, 60):
        api.send(client, [(f"{number}.jpg", samples.jpeg(number)) for number in range(count)])
    assert descriptors[1] - descriptors[0] < 10


def test_the_same_key_at_the_same_time_creates_one_batch(app: APIFlask, token: str) -> None:
    ids: list[str] = []

    def ask() -> None:
        answer = api.send(with_token(app, token), [("a.jpg", samples.jpeg())], headers={"Idempotency-Key": "k"})
        ids.append(answer.get_json()["id"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4 and len(set(ids)) == 1


def test_a_file_that_is_refused_twice_in_one_request_is_noted_once(client: FlaskClient) -> None:
    other = ("a.jpg", samples.jpeg(2))
    answer = api.send(client, [("a.jpg", samples.jpeg(1)), other, other, ("b.txt", b"text"), ("b.txt", b"text")])
    assert answer.status_code == 202, answer.text
    assert [one["name"] for one in answer.get_json()["refusals"]].count("a.jpg") == 1


BAD_NAMES = [b"\xff\xfe.jpg", b"a\0b.jpg", b"../a.jpg", b"", b"x" * 20_000 + b".jpg", b"\xe4.jpg", b"C:\\\\a.jpg"]


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_a_bad_name_in_a_form_refuses_one_file_and_not_the_request(client: FlaskClient, bad: bytes) -> None:
    body = api.multipart(
        [("a.jpg", samples.jpeg()), ("BAD", samples.jpeg(1)), ("ü.jpg", samples.jpeg(2))], {"name": "n"}
    )
    answer = client.post(
        api.BATCHES,
        data=body.replace(b'"BAD"', b'"' + bad + b'"'),
        content_type=f"multipart/form-data; boundary={api.BOUNDARY}",
    )
    assert answer.status_code == 202, answer.text
    batch = answer.get_json()
    assert (batch["counts"]["received"], [one["code"] for one in batch["refusals"]]) == (2, ["bad_name"])
    images = client.get(api.url(batch, "/images")).get_json()["images"]
    assert [image["name"] for image in images] == ["a.jpg", "ü.jpg"]


def test_files_of_one_name_in_a_form_are_refused_one_by_one(client: FlaskClient) -> None:
    batch = api.send(client, [("1.jpg", samples.jpeg(seed)) for seed in range(4)]).get_json()
    assert (batch["counts"]["received"], batch["counts"]["refused"], len(batch["refusals"])) == (1, 3, 3)


def test_other_files_under_a_refused_name_are_refused_too_and_the_same_one_once(client: FlaskClient) -> None:
    batch = api.create(client)
    for seed in (1, 2, 3, 3, 2):
        api.put(client, batch, "1.jpg", samples.jpeg(seed))
    for text in (b"one", b"two", b"two"):
        api.put(client, batch, "notes.txt", text)
    assert api.status(client, batch)["counts"]["refused"] == 4
    assert len(client.get(api.url(batch, "/refusals")).get_json()["refusals"]) == 4
