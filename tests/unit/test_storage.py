"""The contract of every blob store, and the local store when an upload and the reaper use one file at the same time."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from dermq import errors
from dermq.storage import THUMBNAIL, BlobStore, local
from dermq.storage.local import LocalStore
from tests.memory_store import MemoryStore

BATCH, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
HOUR = 3600.0


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    found: BlobStore = LocalStore(tmp_path / "blobs") if request.param == "local" else MemoryStore()
    found.begin()
    return found


def keep(store: BlobStore, content: bytes = b"content", batch: uuid.UUID = BATCH) -> str:
    with store.receive() as file:
        file.write(content)
        file.finish()
        store.keep(batch, [file])
        return file.sha256


def read(store: BlobStore, name: str, batch: uuid.UUID = BATCH) -> bytes:
    with store.open(batch, name) as file:
        return file.read()


def test_a_file_is_read_back_before_and_after_it_is_kept(store: BlobStore) -> None:
    with store.receive() as file:
        file.write(b"con")
        file.write(b"tent")
        file.finish()
        with file.open() as content:
            assert content.read() == b"content"
        assert file.bytes == 7 and file.kept_at is None
        store.keep(BATCH, [file])
        assert file.kept_at == pytest.approx(time.time(), abs=60)
    assert read(store, file.sha256) == b"content" and store.list(BATCH) == [file.sha256]


def test_a_file_that_was_not_kept_is_gone(store: BlobStore) -> None:
    with store.receive() as file:
        file.write(b"content")
        file.finish()
    with pytest.raises(errors.Transient):
        store.keep(BATCH, [file])


def test_keeping_twice_is_safe_until_the_file_is_collected(store: BlobStore) -> None:
    with store.receive() as file:
        file.write(b"content")
        file.finish()
        store.keep(BATCH, [file])
        store.keep(BATCH, [file])
        store.delete(BATCH, file.sha256)
        with pytest.raises(errors.Transient):
            store.keep(BATCH, [file])


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "local"])
def test_a_store_that_was_not_begun_takes_nothing(make: Callable[[], BlobStore] | None, tmp_path: Path) -> None:
    store = make() if make else LocalStore(tmp_path)
    assert not store.is_begun()
    with pytest.raises(errors.Transient):
        keep(store)
    with pytest.raises(errors.Transient):
        store.probe()
    store.begin()
    store.probe()
    assert store.is_begun() and keep(store)


def test_a_copy_outlives_its_source(store: BlobStore) -> None:
    name = keep(store)
    for _ in range(2):
        store.copy(BATCH, OTHER, [name])
    store.delete_batch(BATCH)
    assert read(store, name, OTHER) == b"content" and store.list(BATCH) == []
    with pytest.raises(errors.Transient):
        store.copy(BATCH, OTHER, [name])


def test_a_thumbnail_brings_back_no_deleted_batch(store: BlobStore) -> None:
    name = keep(store)
    store.put_thumbnail(BATCH, name, b"small")
    assert read(store, name + THUMBNAIL) == b"small"
    store.delete_batch(BATCH)
    store.put_thumbnail(BATCH, name, b"small")
    assert store.list(BATCH) == []


def test_only_what_is_old_enough_is_listed_and_deleted(store: BlobStore) -> None:
    name = keep(store)
    assert store.list(BATCH, older_than_seconds=HOUR) == [] and store.list_batches(older_than_seconds=HOUR) == []
    store.delete(BATCH, name, older_than_seconds=HOUR)
    assert store.list(BATCH, older_than_seconds=-1) == [name] and store.list_batches(older_than_seconds=-1) == [BATCH]
    store.delete(BATCH, name, older_than_seconds=-1)
    store.delete(BATCH, name, older_than_seconds=-1)
    assert store.list(BATCH) == []


def test_a_blob_that_is_not_there_is_a_missing_file(store: BlobStore) -> None:
    for batch in (BATCH, OTHER):
        with pytest.raises(FileNotFoundError):
            store.open(batch, "0" * 64)
        store.delete(batch, "0" * 64)
    keep(store)
    with pytest.raises(FileNotFoundError):
        store.open(BATCH, "0" * 64)


@pytest.mark.parametrize("at", [1, 2], ids=["before it is renamed", "while it is aside"])
def test_a_file_kept_again_while_the_reaper_removes_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store = LocalStore(tmp_path)
    store.begin()
    name = keep(store)
    make_old(tmp_path / str(BATCH) / name)
    is_older, looks = local._is_older, []

    def keeping(path: Path, seconds: float) -> bool:
        found = is_older(path, seconds)
        looks.append(path)
        if len(looks) == at:
            keep(store)
        return found

    monkeypatch.setattr(local, "_is_older", keeping)
    store.delete(BATCH, name, older_than_seconds=HOUR)
    assert len(looks) == 2 and store.list(BATCH) == [name] and read(store, name) == b"content"


def test_a_file_that_lies_aside_after_a_crash_gets_its_name_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.begin()
    name = keep(store)
    path = tmp_path / str(BATCH) / name
    aside = path.rename(path.with_name(name + ".aside"))
    store.delete(BATCH, aside.name, older_than_seconds=HOUR)
    assert store.list(BATCH) == [name]


def test_a_copy_is_young_however_old_its_source(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.begin()
    name = keep(store)
    make_old(tmp_path / str(BATCH) / name)
    store.copy(BATCH, OTHER, [name])
    assert store.list(OTHER, older_than_seconds=HOUR) == []
    assert not list((tmp_path / "incoming").iterdir())


def test_a_file_that_took_hours_to_arrive_is_young_once_it_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.begin()
    with store.receive() as file:
        file.write(b"content")
        file.finish()
        make_old(tmp_path / "incoming" / file.token)
        store.keep(BATCH, [file])
    assert store.list(BATCH, older_than_seconds=HOUR) == []


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))
