"""A disk too small to unpack: the archive says why it waits, loses nothing, and goes on by itself."""

import os
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient

from dermq import batches, bundles, conservation, db, storage
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Lab
from dermq.principals import OPERATOR
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes, samples
from tests.integration import test_pages
from tests.integration.test_unpack import get, store
from worker.classify.runtime import ClassifyRuntime
from worker.intake import unpack


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    """Reports as much free space as a test sets."""

    free_bytes = 10**12


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, found.free_bytes))
    monkeypatch.setattr(unpack, "_PAUSE_SECONDS", 0.05)
    return found


@pytest.fixture
def runtime(sessions: db.Sessions, blobs: LocalStore, settings: Settings, bundle: bundles.Bundle) -> ClassifyRuntime:
    short = settings.model_copy(update={"drain_seconds": 0.5})
    return fakes.runtime(short, sessions, blobs, bundle, fakes.Engine())


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def archive(runtime: ClassifyRuntime, batch: Batch, disk: Disk) -> Iterator[Archive]:
    """A stored archive that a worker could not unpack, because the disk has little space left."""
    stored = store(runtime, batch, samples.archive(fakes.pictures(3)))
    disk.free_bytes = storage.RESERVE_BYTES + 100
    before = fakes.get(runtime.sessions, batch).version
    unpack.drain(runtime)
    assert fakes.get(runtime.sessions, batch).version > before
    yield stored


def test_an_archive_without_space_waits_and_says_why(
    runtime: ClassifyRuntime, batch: Batch, archive: Archive, client: FlaskClient, token: str
) -> None:
    found = get(runtime, archive)
    assert (found.state, found.losses, found.entries) == (ArchiveState.STORED, 0, 0)
    shown: dict[str, Any] = client.get(f"{api.BATCHES}/{batch.id}/archives").get_json()["archives"][0]
    assert shown["state"] == "stored" and shown["error"] is None
    assert shown["waiting"]["code"] == "storage_full" and "goes on by itself" in shown["waiting"]["detail"]
    assert test_pages.sign_in(client, token).status_code == 302
    assert "goes on by itself" in client.get(f"/batches/{batch.id}").text
    assert conservation.audit(runtime.sessions, runtime.blobs, batch.id).findings == ()


def test_readiness_says_that_an_archive_waits_for_space(archive: Archive, client: FlaskClient, disk: Disk) -> None:
    check = client.get("/health/ready").get_json()["checks"]["storage"]
    assert not check["ok"] and "wait for space: 1" in check["detail"] and "16 MB left" in check["detail"]


def test_readiness_says_that_the_disk_is_full_before_an_archive_waits(client: FlaskClient, disk: Disk) -> None:
    assert client.get("/health/ready").get_json()["checks"]["storage"]["ok"]
    disk.free_bytes = storage.RESERVE_BYTES - 1
    assert not client.get("/health/ready").get_json()["checks"]["storage"]["ok"]


def test_an_archive_goes_on_by_itself_when_there_is_space(
    runtime: ClassifyRuntime, batch: Batch, archive: Archive, client: FlaskClient, disk: Disk
) -> None:
    disk.free_bytes = 10**12
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert (found.state, found.received, found.error_code, found.losses) == (ArchiveState.DONE, 3, None, 0)
    assert client.get(f"{api.BATCHES}/{batch.id}/archives").get_json()["archives"][0]["waiting"] is None
    assert client.get("/health/ready").get_json()["checks"]["storage"]["ok"]
    assert conservation.audit(runtime.sessions, runtime.blobs, batch.id).findings == ()


def test_what_fits_is_received_before_the_archive_waits(runtime: ClassifyRuntime, batch: Batch, disk: Disk) -> None:
    """Given an archive whose third image is too large for the space that is left."""
    large = samples.encoded(samples.picture(200, 200), "BMP")
    files = {"0.jpg": samples.jpeg(0), "1.jpg": samples.jpeg(1), "2.bmp": large, "3.jpg": samples.jpeg(3)}
    stored = store(runtime, batch, samples.archive(files))
    disk.free_bytes = storage.RESERVE_BYTES + len(large) - 1
    unpack.drain(runtime)
    found = get(runtime, stored)
    assert (found.state, found.received, found.error_code) == (ArchiveState.STORED, 2, "storage_full")
    disk.free_bytes += 1
    unpack.drain(runtime)
    assert get(runtime, stored).received == 4
    assert conservation.audit(runtime.sessions, runtime.blobs, batch.id).findings == ()


def test_other_archives_go_on_while_one_waits_for_space(
    runtime: ClassifyRuntime, batch: Batch, archive: Archive, lab: Lab, bundle: bundles.Bundle, disk: Disk
) -> None:
    """Given refused entries alone, which need no space."""
    other = fakes.create(runtime.sessions, lab, bundle)
    stored = store(runtime, other, samples.archive({"notes.jpg": b"text", "folder/": b""}))
    disk.free_bytes = storage.RESERVE_BYTES + 100
    unpack.drain(runtime)
    assert get(runtime, stored).state is ArchiveState.DONE
    assert get(runtime, archive).state is ArchiveState.STORED


def test_a_disk_that_is_full_although_it_reports_space_is_met_in_the_same_way(
    runtime: ClassifyRuntime, batch: Batch, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    stored = store(runtime, batch, samples.archive(fakes.pictures(3)))
    monkeypatch.setattr(os, "fsync", fail)
    unpack.drain(runtime)
    assert get(runtime, stored).error_code == "storage_full"
    monkeypatch.setattr(os, "fsync", fsync)
    unpack.drain(runtime)
    assert get(runtime, stored).received == 3


def test_a_cancelled_archive_no_longer_waits(runtime: ClassifyRuntime, batch: Batch, archive: Archive) -> None:

    db.transact(runtime.sessions, batches.cancel, batch.id, by=OPERATOR)
    db.transact(runtime.sessions, batches.sweep, batch.id)
    found = get(runtime, archive)
    assert (found.state, found.error_code) == (ArchiveState.CANCELLED, None)
