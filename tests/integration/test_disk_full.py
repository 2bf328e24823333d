"""A full disk of the files or of the database: clear responses, no accepted image is lost, and work resumes."""

import contextlib
import errno
import io
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dermq import archives, batches, bundles, conservation, db
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Lab
from dermq.principals import OPERATOR
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes, samples
from tests.conftest import missing
from worker.classify import pipeline
from worker.intake import unpack
from worker.process import backoff
from worker.reaper import Reaper

DEVICE = Path("/dev/full")
"""A device whose every write fails as on a full disk."""
LARGE = samples.archive({"noise": os.urandom(300_000)})
IMAGES = {f"{seed}.jpg": samples.jpeg(seed) for seed in range(3)}


class Disk:
    """The disk of the blob store, which is full at one of the ``EDGES`` while ``is_full``."""

    is_full = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, edge: str) -> None:
        self._calls = itertools.count()
        if edge == "write":
            monkeypatch.setattr(Path, "open", self._opening_device(Path.open))
        elif edge == "folder":
            monkeypatch.setattr(os, "fsync", self._failing(os.fsync, when=lambda: next(self._calls) % 2 == 1))
        else:
            owner = {"fsync": os, "rename": Path, "mkdir": Path}[edge]
            monkeypatch.setattr(owner, edge, self._failing(getattr(owner, edge)))

    def _opening_device(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def open_device(path: Path, *arguments: Any, **more: Any) -> Any:
            incoming = self.is_full and path.parent.name == "incoming" and arguments == ("wb",)
            return opened(DEVICE if incoming else path, *arguments, **more)

        return open_device

    def _failing(self, work: Callable[..., Any], when: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
        def fail(*arguments: Any, **more: Any) -> Any:
            if self.is_full and when():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return work(*arguments, **more)

        return fail


EDGES = ("write", "fsync", "rename", "mkdir", "folder")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Disk:
    if not DEVICE.exists():
        missing(str(DEVICE))
    return Disk(monkeypatch, getattr(request, "param", "write"))


class FullDatabase:
    """Makes the database's disk full for a while: no page more on SQLite, errors of the server on PostgreSQL."""

    def __init__(self, sessions: db.Sessions) -> None:
        self._engine = sessions.engine
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._pages = 2**30

    @contextlib.contextmanager
    def available(self) -> Iterator["FullDatabase"]:
        if self._is_sqlite:
            sa.event.listen(sa.Engine, "begin", self._limit)
        else:
            self._execute(
                "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
            )
        yield self
        if self._is_sqlite:
            sa.event.remove(sa.Engine, "begin", self._limit)

    def fill(self) -> None:
        self._pages = 1  # SQLite sets the limit to the number of existing pages
        self._trigger("CREATE OR REPLACE TRIGGER no_space BEFORE INSERT OR UPDATE ON {} EXECUTE FUNCTION no_space()")

    def free(self) -> None:
        self._pages = 2**30
        self._trigger("DROP TRIGGER IF EXISTS no_space ON {}")

    def _limit(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self._pages}")

    def _trigger(self, statement: str) -> None:
        for table in () if self._is_sqlite else ("batch", "image", "archive", "claim", "prediction"):
            self._execute(statement.format(table))

    def _execute(self, statement: str) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture
def database(sessions: db.Sessions) -> Iterator[FullDatabase]:
    with FullDatabase(sessions).available() as found:
        yield found


def until_full(request: Callable[[int], TestResponse]) -> int:
    """Repeat a request until the database is full; return how often it was accepted."""
    for accepted in range(200):
        answer = request(accepted)
        if answer.status_code >= 400:
            api.assert_problem(answer, 507, "database_full")
            return accepted
    raise AssertionError("The database was never full.")


def assert_conserved(sessions: db.Sessions, blobs: LocalStore, batch_id: str | uuid.UUID) -> None:
    assert conservation.audit(sessions, blobs, uuid.UUID(str(batch_id))).findings == ()


@pytest.mark.parametrize("disk", EDGES, indirect=True)
def test_an_image_without_space_is_reported_and_can_be_uploaded_later(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, disk: Disk
) -> None:
    batch = api.create(client)
    assert api.put(client, batch, "a.jpg", samples.jpeg(1)).status_code == 202
    disk.is_full = True
    api.assert_problem(api.put(client, batch, "b.jpg", samples.jpeg(2)), 507, "storage_full")
    disk.is_full = False
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["refused"]) == (1, 0)
    assert not any((blobs.root / "incoming").iterdir())
    assert_conserved(sessions, blobs, batch["id"])
    assert api.put(client, batch, "b.jpg", samples.jpeg(2)).status_code == 202
    assert_conserved(sessions, blobs, batch["id"])


@pytest.mark.parametrize("disk", EDGES, indirect=True)
def test_an_archive_without_space_is_reported_and_does_not_block_its_batch(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, disk: Disk
) -> None:
    batch = api.create(client)
    disk.is_full = True
    api.assert_problem(client.put(api.url(batch, "/archive"), data=LARGE), 507, "storage_full")
    disk.is_full = False
    assert api.status(client, batch)["counts"]["archives_open"] == 0
    assert client.put(api.url(batch, "/archive"), data=LARGE).status_code == 202
    assert client.post(api.url(batch, "/seal")).status_code == 200
    assert_conserved(sessions, blobs, batch["id"])


@pytest.mark.parametrize("disk", EDGES, indirect=True)
def test_a_form_without_room_creates_nothing_and_may_be_repeated(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, disk: Disk
) -> None:
    key = {"Idempotency-Key": "once"}
    disk.is_full = True
    api.assert_problem(api.send(client, list(IMAGES.items()), key), 507, "storage_full")
    disk.is_full = False
    assert client.get(api.BATCHES).get_json()["batches"] == []
    created = api.send(client, list(IMAGES.items()), key)
    assert created.status_code == 202 and created.get_json()["counts"]["received"] == 3
    assert_conserved(sessions, blobs, created.get_json()["id"])


def test_images_that_meet_a_full_database_are_reported_and_accepted_ones_stay(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, database: FullDatabase
) -> None:
    batch = api.create(client)
    database.fill()
    accepted = until_full(lambda at: api.put(client, batch, f"{at}.jpg", samples.jpeg(at)))
    database.free()
    counts = api.status(client, batch)["counts"]
    assert (counts["received"], counts["queued"]) == (accepted, accepted)
    assert_conserved(sessions, blobs, batch["id"])
    assert api.put(client, batch, f"{accepted}.jpg", samples.jpeg(accepted)).status_code == 202
    assert_conserved(sessions, blobs, batch["id"])


def test_no_batch_is_half_created_over_a_full_database(client: FlaskClient, database: FullDatabase) -> None:
    database.fill()
    accepted = until_full(lambda at: client.post(api.BATCHES, json={"name": "n" * 200}))
    until_full(lambda at: api.send(client, list(IMAGES.items()), {"Idempotency-Key": f"key {at}"}))
    database.free()
    counts = [batch["counts"]["received"] for batch in client.get(api.BATCHES + "?limit=200").get_json()["batches"]]
    assert counts.count(0) == accepted and set(counts) <= {0, 3}
    assert client.post(api.BATCHES, json={"name": "room again"}).status_code == 201


def test_an_archive_that_meets_a_full_database_is_reported_and_closed_later(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, settings: Settings, database: FullDatabase
) -> None:
    """Given a database that is full while an archive arrives, so that the failure cannot be recorded either."""
    batch = api.create(client, metadata={"filler": "x" * 3_000})

    class Filling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            database.fill()
            return super().read(size)

    answer = client.put(api.url(batch, "/archive"), environ_overrides=api.streamed(Filling(LARGE), len(LARGE)))
    if sessions.engine.dialect.name == "postgresql":  # SQLite has space for these few bytes in an existing page
        api.assert_problem(answer, 507, "database_full")
        assert api.status(client, batch)["counts"]["archives_open"] == 1
    database.free()
    past = datetime.now(UTC) - timedelta(hours=1)
    db.transact(sessions, lambda session: session.execute(sa.update(Archive).values(touched_at=past)))
    Reaper(settings, sessions, blobs, fakes.Wakeups()).close_abandoned_archives()  # type: ignore[arg-type]
    assert client.post(api.url(batch, "/seal")).status_code == 200
    assert_conserved(sessions, blobs, batch["id"])


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


def test_a_worker_waits_to_record_until_the_database_has_room_and_predicts_nothing_twice(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    database: FullDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.1, 0.1))
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(64))

    def fill(pixels: object) -> None:
        database.fill()
        threading.Timer(0.5, database.free).start()

    engine = fakes.Engine(fill)
    whole = settings.model_copy(update={"step_images": 64, "claim_images": 64})
    pipeline.drain(fakes.runtime(whole, sessions, blobs, bundle, engine))
    found = fakes.get(sessions, batch)
    assert "writing again" in caplog.text and "disk is full" in caplog.text
    assert (found.done, found.queued, found.running) == (64, 0, 0) and engine.steps == [64]
    assert_conserved(sessions, blobs, batch.id)


def test_a_thumbnail_without_room_charges_no_image(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.1, 0.1))
    fakes.add(sessions, blobs, settings, batch, fakes.pictures(4))
    disk.is_full = True
    runtime = fakes.runtime(settings.model_copy(update={"drain_seconds": 0.5}), sessions, blobs, bundle, fakes.Engine())
    pipeline.drain(runtime)
    found = fakes.get(sessions, batch)
    assert (found.queued, found.done, found.failed) == (4, 0, 0)
    assert not any(image.suspect or image.solo_losses for image in fakes.images(sessions, batch))
    disk.is_full = False
    pipeline.drain(fakes.runtime(settings, sessions, blobs, bundle, fakes.Engine()))
    assert fakes.get(sessions, batch).done == 4
    assert_conserved(sessions, blobs, batch.id)


def test_unpacking_resumes_when_there_is_space_again(
    sessions: db.Sessions,
    blobs: LocalStore,
    settings: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpack, "_PAUSE_SECONDS", 0.1)
    archive_id = batches.make_id()
    db.transact(sessions, archives.begin, batch.id, archive_id)
    with blobs.receive() as file:
        file.write(samples.archive(IMAGES))
        file.finish()
        archives.keep(sessions, blobs, archive_id, file)
        db.transact(sessions, archives.store, archive_id, file)
    disk.is_full = True
    runtime = fakes.runtime(settings.model_copy(update={"drain_seconds": 0.5}), sessions, blobs, bundle, fakes.Engine())
    unpack.drain(runtime)
    waiting = db.read(sessions, lambda session: session.get(Archive, archive_id))
    assert waiting is not None and (waiting.state, waiting.losses, waiting.entries) == (ArchiveState.STORED, 0, 0)
    assert_conserved(sessions, blobs, batch.id)
    disk.is_full = False
    unpack.drain(runtime)
    assert fakes.get(sessions, batch).received == 3
    assert_conserved(sessions, blobs, batch.id)


def test_the_reaper_lives_through_a_full_database(
    sessions: db.Sessions, blobs: LocalStore, settings: Settings, batch: Batch, database: FullDatabase
) -> None:
    fakes.fill(sessions, batch, 100)
    db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
    reaper = Reaper(settings, sessions, blobs, fakes.Wakeups())  # type: ignore[arg-type]
    database.fill()
    reaper.run_round()
    database.free()
    reaper.run_round()
    found = fakes.get(sessions, batch)
    assert (found.cancelled, found.queued) == (100, 0) and found.finished_at is not None
