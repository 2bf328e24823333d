"""Uploads of valid and damaged images and archives: each gets a clear response, and nothing is lost."""

import contextlib
import io
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from gunicorn.http.errors import ChunkMissingTerminator
from PIL import Image as Picture

from dermq import archives, batches, db, errors
from dermq.models import Archive, Image, Lab
from dermq.principals import OPERATOR
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import api, fakes, samples
from tests.integration.conftest import with_token
from web import services


def test_an_image_is_received_and_the_workers_are_woken(
    client: FlaskClient, wakeups: fakes.Wakeups, blobs: LocalStore
) -> None:
    batch = api.create(client)
    answer = api.put(client, batch, "visit 2/ISIC_1.jpg", samples.jpeg(width=64, height=48))
    image = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == image["links"]["self"] == api.url(batch, "/images/1")
    assert answer.headers["Retry-After"] == "1"
    assert (image["position"], image["name"]) == (1, "visit 2/ISIC_1.jpg")
    shown = client.get(image["links"]["self"]).get_json()
    assert (shown["width"], shown["height"]) == (None, None)  # only decoding tells
    assert wakeups.sent == [Queue.CLASSIFY]
    assert blobs.list(uuid.UUID(batch["id"])) == [image["sha256"]]
    assert client.get(answer.headers["Location"]).get_json()["state"] == "queued"


def test_the_same_image_again_changes_nothing(client: FlaskClient, wakeups: fakes.Wakeups) -> None:
    batch = api.create(client)
    first = api.put(client, batch, "a.jpg")
    wakeups.sent.clear()
    again = api.put(client, batch, "a.jpg")
    assert again.status_code == 200
    assert again.get_json() == first.get_json() | {"unchanged": True}
    assert api.status(client, batch)["counts"]["received"] == 1
    assert wakeups.sent == []


def test_other_bytes_under_a_name_that_is_taken_are_a_conflict(client: FlaskClient) -> None:
    batch = api.create(client)
    api.put(client, batch, "a.jpg", samples.jpeg(1))
    api.assert_problem(api.put(client, batch, "a.jpg", samples.jpeg(2)), 409, "name_taken")
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["refused"]) == (1, 1)


REFUSED = {
    "text.jpg": (b"this is no image", 415, "unsupported_format"),
    "empty.jpg": (b"", 422, "empty_file"),
    "drawing.svg": (samples.svg(), 415, "unsupported_format"),
    "moving.gif": (samples.animated_gif(), 415, "unsupported_format"),
    "huge.png": (samples.huge_png_header(), 413, "too_many_pixels"),
    "images.zip": (samples.archive({"a.jpg": b"x"}), 415, "archive"),
    "../escape.jpg": (samples.jpeg(), 422, "bad_name"),
    "/etc/passwd": (samples.jpeg(), 422, "bad_name"),
    "C:\\a.jpg": (samples.jpeg(), 422, "bad_name"),
    f"{'n' * 296}.jpg": (samples.jpeg(), 422, "bad_name"),
    "nul\0.jpg": (samples.jpeg(), 422, "bad_name"),
    "": (samples.jpeg(), 422, "bad_name"),
}


def test_what_can_be_told_without_decoding_is_refused_and_kept(client: FlaskClient, blobs: LocalStore) -> None:
    batch = api.create(client)
    for name, (data, status, code) in REFUSED.items():
        for _ in range(2):  # a repeated upload adds nothing
            problem = api.assert_problem(api.put(client, batch, name, data), status, code)
            assert problem["detail"].endswith(".")
    assert api.refusals(client, batch) == {name.replace("\0", "\\x00"): code for name, (_, _, code) in REFUSED.items()}
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["refused"]) == (0, len(REFUSED))
    assert blobs.list(uuid.UUID(batch["id"])) == []
    assert not any((blobs.root / "incoming").glob("*"))


def _pixels(mode: str, format: str) -> bytes:
    return samples.encoded(samples.picture().convert(mode), format)


TAKEN = {
    "truncated.jpg": samples.truncated_jpeg(),  # it is accepted, and fails when a worker decodes it
    "cmyk.jpg": _pixels("CMYK", "JPEG"),
    "palette.png": _pixels("P", "PNG"),
    "alpha.png": _pixels("RGBA", "PNG"),
    "sixteen.png": samples.encoded(Picture.new("I;16", (8, 8), 4096), "PNG"),
    "grey.tiff": _pixels("L", "TIFF"),
    "lossy.webp": _pixels("RGB", "WEBP"),
    "plain.bmp": _pixels("RGB", "BMP"),
    "Ärzte 🔬/läsion #1?&=%2e.jpg": samples.jpeg(),
    "..jpg": samples.jpeg(),
    f"{'é' * 251}.jpg": samples.jpeg(),
}


def test_what_only_decoding_can_tell_is_received(client: FlaskClient) -> None:
    batch = api.create(client)
    for name, data in TAKEN.items():
        answer = api.put(client, batch, name, data)
        assert (answer.status_code, answer.get_json()["name"]) == (202, name)
    images = client.get(api.url(batch, "/images")).get_json()["images"]
    assert [(image["name"], image["state"]) for image in images] == [(name, "queued") for name in TAKEN]


def test_a_name_is_composed_and_its_slashes_turned(client: FlaskClient) -> None:
    batch = api.create(client)
    assert api.put(client, batch, "a\\e\u0301.jpg").get_json()["name"] == "a/\u00e9.jpg"


def test_uploads_may_be_larger_than_a_form(client: FlaskClient) -> None:
    batch = api.create(client)
    noise = bytes(range(256)) * 8_000
    bmp = samples.encoded(samples.picture(1000, 700), "BMP")
    assert len(noise) > 2_000_000 and len(bmp) > 2_000_000
    assert api.put(client, batch, "a.bmp", bmp).status_code == 202
    zipped = samples.archive({"noise": noise}, compression=0)
    assert client.put(api.url(batch, "/archive"), data=zipped).status_code == 202
    chunked = api.streamed(io.BytesIO(zipped[:-1]))
    api.assert_problem(client.put(api.url(batch, "/archive"), environ_overrides=chunked), 415, "not_a_zip")
    assert api.send(client, [("a.bmp", bmp)]).status_code == 202


def test_an_image_without_a_name_is_a_problem(client: FlaskClient) -> None:
    batch = api.create(client)
    problem = api.assert_problem(client.put(api.url(batch, "/images"), data=samples.jpeg()), 422, "invalid_request")
    assert problem["errors"][0]["where"] == "query.name"


def test_an_image_over_the_limit_is_refused_before_it_is_read(make_app: Callable[..., APIFlask], token: str) -> None:
    client = with_token(make_app(max_image_bytes=1000), token)
    batch = api.create(client)
    unread = api.streamed(_Unreadable(), 1001)
    answer = client.put(api.url(batch, "/images?name=a.jpg"), environ_overrides=unread)
    api.assert_problem(answer, 413, "image_too_large")
    assert "1,000 bytes" in answer.get_json()["detail"]
    assert api.refusals(client, batch) == {"a.jpg": "image_too_large"}


def test_an_image_over_the_limit_that_does_not_say_so_is_refused(
    make_app: Callable[..., APIFlask], token: str, blobs: LocalStore
) -> None:
    client = with_token(make_app(max_image_bytes=1000), token)
    batch = api.create(client)
    body = api.streamed(io.BytesIO(b"\xff" * 200_000))
    answer = client.put(api.url(batch, "/images?name=a.jpg"), environ_overrides=body)
    api.assert_problem(answer, 413, "image_too_large")
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_batch_over_its_limit_refuses_the_rest(make_app: Callable[..., APIFlask], token: str) -> None:
    client = with_token(make_app(max_images_per_batch=2), token)
    batch = api.create(client)
    for number in range(2):
        assert api.put(client, batch, f"{number}.jpg", samples.jpeg(number)).status_code == 202
    api.assert_problem(api.put(client, batch, "2.jpg", samples.jpeg(2)), 413, "batch_full")
    assert api.put(client, batch, "1.jpg", samples.jpeg(1)).status_code == 200
    assert api.refusals(client, batch) == {"2.jpg": "batch_full"}


def test_a_client_that_dies_midway_leaves_nothing(client: FlaskClient, blobs: LocalStore) -> None:
    batch = api.create(client)
    half = samples.jpeg()[:500]
    body = api.streamed(io.BytesIO(half), len(half) + 1)
    answer = client.put(api.url(batch, "/images?name=a.jpg"), environ_overrides=body)
    assert answer.status_code == 400
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["refused"]) == (0, 0)
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_chunked_body_that_breaks_off_leaves_nothing(client: FlaskClient, blobs: LocalStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if chunk := super().read(size):
                return chunk
            raise ChunkMissingTerminator(b"")

    batch = api.create(client)
    answer = client.put(api.url(batch, "/images?name=a.jpg"), environ_overrides=api.streamed(Broken(samples.jpeg())))
    assert answer.status_code == 400
    assert api.status(client, batch)["counts"]["received"] == 0
    assert not any((blobs.root / "incoming").glob("*"))


def test_a_transaction_that_is_run_again_receives_an_image_once(
    client: FlaskClient, app: APIFlask, blobs: LocalStore
) -> None:
    batch = api.create(client)
    with first_commit_fails(app):
        assert api.put(client, batch, "a.jpg").status_code == 202
    assert api.status(client, batch)["counts"]["received"] == 1
    assert len(blobs.list(uuid.UUID(batch["id"]))) == 1


def test_uploads_beyond_half_of_the_threads_are_asked_to_wait(
    make_app: Callable[..., APIFlask], token: str, lab: Lab
) -> None:
    app = make_app(web_threads=4)
    client = with_token(app, token)
    batch = api.create(client)
    places = app.extensions[services.EXTENSION].places
    held = [places.take(lab.id, end=lambda: None) for _ in range(2)]
    for answer in (
        api.put(client, batch, "a.jpg"),
        client.put(api.url(batch, "/archive"), data=samples.archive({"a.jpg": samples.jpeg()})),
        api.send(client, [("a.jpg", samples.jpeg())]),
    ):
        api.assert_problem(answer, 503, "busy_receiving")
        assert answer.headers["Retry-After"] == "1"
    assert api.status(client, batch)["counts"]["refused"] == 0  # the batch can still be read
    places.leave(held[0])
    assert api.put(client, batch, "a.jpg").status_code == 202
    places.take(lab.id, end=lambda: None)  # the upload's place was given back


def test_an_archive_is_stored_for_the_unpacker(client: FlaskClient, wakeups: fakes.Wakeups) -> None:
    batch = api.create(client)
    data = samples.archive({"a.jpg": samples.jpeg()})
    answer = client.put(api.url(batch, "/archive"), data=data)
    archive = answer.get_json()
    assert (answer.status_code, archive["state"], archive["bytes"]) == (202, "stored", len(data))
    assert client.get(answer.headers["Location"]).get_json() == archive
    assert client.get(api.url(batch, "/archives")).get_json()["archives"] == [archive]
    assert api.status(client, batch)["counts"]["archives_open"] == 1
    assert wakeups.sent == [Queue.INTAKE]


def test_an_identical_archive_is_a_no_op_and_another_adds(client: FlaskClient, wakeups: fakes.Wakeups) -> None:
    batch = api.create(client)
    data = samples.archive({"a.jpg": samples.jpeg()})
    first = client.put(api.url(batch, "/archive"), data=data)
    wakeups.sent.clear()
    again = client.put(api.url(batch, "/archive"), data=data)
    assert (again.status_code, again.get_json()["id"]) == (200, first.get_json()["id"])
    assert wakeups.sent == []
    assert client.put(api.url(batch, "/archive"), data=samples.archive({"b.jpg": b"x"})).status_code == 202
    assert api.status(client, batch)["counts"]["archives_open"] == 2


@pytest.mark.parametrize(
    "data", [samples.jpeg(), b"", samples.archive({"a.jpg": samples.jpeg()})[:-30], b"PK\x03\x04 and no more"]
)
def test_what_is_no_archive_is_refused_and_keeps_no_batch_open(
    client: FlaskClient, wakeups: fakes.Wakeups, blobs: LocalStore, data: bytes
) -> None:
    batch = api.create(client)
    api.assert_problem(client.put(api.url(batch, "/archive"), data=data), 415, "not_a_zip")
    [archive] = client.get(api.url(batch, "/archives")).get_json()["archives"]
    assert (archive["state"], archive["error"]["code"]) == ("failed", "not_a_zip")
    assert wakeups.sent == []
    assert blobs.list(uuid.UUID(batch["id"])) == []
    assert client.post(api.url(batch, "/seal")).get_json()["state"] == "finished"


def test_an_archive_over_the_limit_is_a_problem(
    make_app: Callable[..., APIFlask], token: str, blobs: LocalStore
) -> None:
    client = with_token(make_app(max_archive_bytes=1000, max_image_bytes=1000), token)
    batch = api.create(client)
    unread = client.put(api.url(batch, "/archive"), environ_overrides=api.streamed(_Unreadable(), 1001))
    api.assert_problem(unread, 413, "archive_too_large")
    body = api.streamed(io.BytesIO(b"PK\x03\x04" + bytes(2000)))
    chunked = client.put(api.url(batch, "/archive"), environ_overrides=body)
    api.assert_problem(chunked, 413, "archive_too_large")
    assert not any((blobs.root / "incoming").glob("*"))
    assert api.status(client, batch)["counts"]["archives_open"] == 0


def test_an_archive_that_breaks_off_is_closed(client: FlaskClient) -> None:
    batch = api.create(client)
    body = api.streamed(io.BytesIO(b"PK\x03\x04"), 1000)
    answer = client.put(api.url(batch, "/archive"), environ_overrides=body)
    assert answer.status_code == 400
    [archive] = client.get(api.url(batch, "/archives")).get_json()["archives"]
    assert (archive["state"], archive["error"]["code"]) == ("failed", "upload_ended")


def test_a_batch_is_not_sealed_while_an_archive_is_received(client: FlaskClient, sessions: db.Sessions) -> None:
    batch = api.create(client)
    db.transact(sessions, archives.begin, uuid.UUID(batch["id"]), uuid.uuid4())
    api.assert_problem(client.post(api.url(batch, "/seal")), 409, "archive_being_received")


def test_an_archive_being_received_gives_signs_of_life(
    client: FlaskClient, sessions: db.Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.api.uploads._TOUCH_SECONDS", 0.0)
    batch = api.create(client)
    seen = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append(db.read(sessions, lambda session: session.scalar(sa.select(Archive.bytes))))
            return super().read(size)

    data = samples.archive({"noise": bytes(range(256)) * 1000}, compression=0)
    answer = client.put(api.url(batch, "/archive"), environ_overrides=api.streamed(Watched(data), len(data)))
    assert answer.status_code == 202
    assert seen[1] is not None and 0 < seen[1] < len(data)


def test_an_upload_to_a_batch_that_is_cancelled_meanwhile_is_a_conflict(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore
) -> None:
    batch = api.create(client)

    class Cancelling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            db.transact(sessions, batches.cancel, uuid.UUID(batch["id"]), by=OPERATOR)
            db.transact(sessions, batches.sweep, uuid.UUID(batch["id"]))
            return super().read(size)

    data = samples.archive({"a.jpg": samples.jpeg()})
    archive = client.put(api.url(batch, "/archive"), environ_overrides=api.streamed(Cancelling(data), len(data)))
    api.assert_problem(archive, 409, "archive_closed")
    assert blobs.list(uuid.UUID(batch["id"])) == []
    assert api.status(client, batch)["counts"]["archives_open"] == 0


def test_a_full_disk_is_reported_and_nothing_is_counted(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = api.create(client)

    def full(self: object, chunk: bytes) -> None:
        raise errors.OutOfSpace("storage_full", "The storage is full; what was accepted before is kept.")

    monkeypatch.setattr("dermq.storage.local.LocalIncoming.write", full)
    api.assert_problem(api.put(client, batch, "a.jpg"), 507, "storage_full")
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["refused"]) == (0, 0)


def test_names_that_a_client_would_rewrite_in_a_path_survive_in_the_query(client: FlaskClient) -> None:
    batch = api.create(client)
    name = "a%2Fb/%2e%2e/c.jpg"
    answer = client.put(api.url(batch, f"/images?name={quote(name, safe='')}"), data=samples.jpeg())
    assert answer.get_json()["name"] == name


def test_positions_follow_arrival(client: FlaskClient, sessions: db.Sessions) -> None:
    batch = api.create(client)
    for name in ("b.jpg", "a.jpg", "c.jpg"):
        api.put(client, batch, name)
    rows = db.read(sessions, lambda session: session.execute(sa.select(Image.position, Image.name)).all())
    assert sorted(map(tuple, rows)) == [(1, "b.jpg"), (2, "a.jpg"), (3, "c.jpg")]


class _Unreadable(io.BytesIO):
    """A body that fails the test when it is read."""

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("The body was read.")


@contextlib.contextmanager
def first_commit_fails(app: APIFlask) -> Iterator[None]:
    """Make the next commit fail once with a serialization failure."""
    engine = app.extensions[services.EXTENSION].sessions.engine
    failed = list[bool]()

    def fail(connection: sa.Connection) -> None:
        if not failed and not connection.get_execution_options().get("dermq_reading"):
            failed.append(True)
            raise sa.exc.OperationalError("COMMIT", {}, _locked(engine))

    sa.event.listen(engine, "commit", fail)
    yield
    sa.event.remove(engine, "commit", fail)
    assert failed


def _locked(engine: sa.Engine) -> Exception:
    if engine.dialect.name == "sqlite":
        return sqlite3.OperationalError("database is locked")
    return psycopg.errors.SerializationFailure("could not serialize access")
