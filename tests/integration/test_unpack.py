"""Unpacking archives: every entry is recorded once, and bad entries are refused with a reason."""

import errno
import io
import os
import threading
import uuid
import zipfile
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dermq import archives, arrivals, batches, bundles, db, errors
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Lab, Refusal
from dermq.principals import OPERATOR
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue
from tests import fakes, samples
from worker.classify.runtime import ClassifyRuntime
from worker.intake import directory, entries, unpack


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def runtime(sessions: db.Sessions, blobs: LocalStore, settings: Settings, bundle: bundles.Bundle) -> ClassifyRuntime:
    return fakes.runtime(settings, sessions, blobs, bundle, fakes.Engine())


def store(runtime: ClassifyRuntime, batch: Batch, data: bytes) -> Archive:
    archive_id = batches.make_id()
    db.transact(runtime.sessions, archives.begin, batch.id, archive_id)
    with runtime.blobs.receive() as file:
        file.write(data)
        file.finish()
        archives.keep(runtime.sessions, runtime.blobs, archive_id, file)
        archive, _ = db.transact(runtime.sessions, archives.store, archive_id, file)
    return archive


def get(runtime: ClassifyRuntime, archive: Archive) -> Archive:
    found = db.read(runtime.sessions, lambda session: session.get(Archive, archive.id))
    assert found is not None
    return found


def refusals(runtime: ClassifyRuntime, batch: Batch) -> dict[str, str]:
    wanted = sa.select(Refusal.name, Refusal.code).where(Refusal.batch_id == batch.id)
    found = db.read(runtime.sessions, lambda session: session.execute(wanted).all())
    return {row.name: row.code for row in found}


def test_names_of_skipped_entries_are_kept_short(runtime: ClassifyRuntime, batch: Batch) -> None:
    archive = store(runtime, batch, samples.archive({"x" * 60_000 + "/": b"", "y" * 254 + "/": b""}))
    unpack.drain(runtime)
    assert get(runtime, archive).skipped_names == ["x" * 254 + "…", "y" * 254 + "/"]


def test_every_entry_gets_a_verdict(runtime: ClassifyRuntime, batch: Batch) -> None:
    entries = {
        "visit 1/": b"",
        "visit 1/a.jpg": samples.jpeg(1),
        "visit 2/a.jpg": samples.jpeg(2),
        "ünï/😀.png": samples.encoded(samples.picture(), "PNG"),
        "__MACOSX/visit 1/._a.jpg": b"junk",
        ".DS_Store": b"junk",
        "visit 2/Thumbs.db": b"junk",
        "empty.jpg": b"",
        "notes.jpg": b"this is text",
        "inner.zip": samples.archive({"b.jpg": samples.jpeg(3)}),
        "../escape.jpg": samples.jpeg(4),
        "x" * 300 + ".jpg": samples.jpeg(5),
        "huge.png": samples.huge_png_header(),
    }
    archive = store(runtime, batch, samples.archive(entries))
    db.transact(runtime.sessions, batches.seal, batch.id, by=OPERATOR)
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert found.state is ArchiveState.DONE
    assert (found.entries, found.received, found.refused, found.skipped) == (13, 3, 6, 4)
    assert found.skipped_names == ["visit 1/", "__MACOSX/visit 1/._a.jpg", ".DS_Store", "visit 2/Thumbs.db"]
    assert [image.name for image in fakes.images(runtime.sessions, batch)] == [
        "visit 1/a.jpg",
        "visit 2/a.jpg",
        "ünï/😀.png",
    ]
    assert refusals(runtime, batch) == {
        "empty.jpg": "empty_file",
        "notes.jpg": "unsupported_format",
        "inner.zip": "archive",
        "../escape.jpg": "bad_name",
        "x" * 300 + ".jpg": "bad_name",
        "huge.png": "too_many_pixels",
    }
    status = fakes.get(runtime.sessions, batch)
    assert (status.received, status.refused, status.archives_open) == (3, 6, 0)
    assert Queue.CLASSIFY in runtime.wakeups.sent  # type: ignore[attr-defined]


def test_names_already_in_the_batch_are_unchanged_or_refused(runtime: ClassifyRuntime, batch: Batch) -> None:
    fakes.add(runtime.sessions, runtime.blobs, runtime.settings, batch, {"a.jpg": samples.jpeg(1)})
    fakes.add(runtime.sessions, runtime.blobs, runtime.settings, batch, {"b.jpg": samples.jpeg(2)})
    archive = store(runtime, batch, samples.archive({"a.jpg": samples.jpeg(1), "b.jpg": samples.jpeg(9)}))
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert (found.unchanged, found.refused, found.received) == (1, 1, 0)
    assert refusals(runtime, batch) == {"b.jpg": "name_taken"}


def test_a_bomb_is_refused_entry_by_entry(runtime: ClassifyRuntime, batch: Batch) -> None:
    small = replace(runtime, settings=runtime.settings.model_copy(update={"max_image_bytes": 100_000}))
    archive = store(small, batch, samples.archive({"bomb.bmp": b"BM" + bytes(50_000_000), "ok.jpg": samples.jpeg()}))
    unpack.drain(small)
    assert get(small, archive).received == 1
    assert refusals(small, batch) == {"bomb.bmp": "image_too_large"}


def test_an_entry_that_lies_about_its_size_is_refused(runtime: ClassifyRuntime, batch: Batch) -> None:
    data = bytearray(samples.archive({"lie.bmp": b"BM" + bytes(300_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (1000).to_bytes(4, "little")
    archive = store(runtime, batch, bytes(data))
    unpack.drain(runtime)
    assert get(runtime, archive).state is ArchiveState.DONE
    assert set(refusals(runtime, batch)) == {"lie.bmp"}


def test_more_images_than_a_batch_holds_are_refused(runtime: ClassifyRuntime, batch: Batch) -> None:
    small = replace(runtime, settings=runtime.settings.model_copy(update={"max_images_per_batch": 2}))
    store(small, batch, samples.archive(fakes.pictures(4)))
    unpack.drain(small)
    assert refusals(small, batch) == {"0002.jpg": "batch_full", "0003.jpg": "batch_full"}


def test_an_encrypted_or_damaged_entry_is_refused(runtime: ClassifyRuntime, batch: Batch) -> None:
    plain = bytearray(samples.archive({"a.jpg": samples.jpeg(1)}, zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        plain[plain.index(signature) + offset] |= 1
    store(runtime, batch, bytes(plain))
    damaged = bytearray(samples.archive({"b.jpg": samples.jpeg(2)}, zipfile.ZIP_STORED))
    damaged[200] ^= 0xFF
    store(runtime, batch, bytes(damaged))
    unpack.drain(runtime)
    assert refusals(runtime, batch) == {"a.jpg": "encrypted", "b.jpg": "damaged_entry"}


def test_an_entry_that_begins_before_its_file_is_refused_and_the_others_are_kept(
    runtime: ClassifyRuntime, batch: Batch
) -> None:
    whole = samples.archive({"a.jpg": samples.jpeg(1), "b.jpg": samples.jpeg(2)}, zipfile.ZIP_STORED)
    cut = whole[:60] + whole[160:]  # the offsets in the central directory are wrong by a hundred bytes
    with zipfile.ZipFile(io.BytesIO(cut)) as read:
        assert read.infolist()[0].header_offset < 0
    archive = store(runtime, batch, cut)
    unpack.drain(runtime)
    assert get(runtime, archive).state is ArchiveState.DONE
    assert refusals(runtime, batch) == {"a.jpg": "damaged_entry"}
    assert fakes.get(runtime.sessions, batch).received == 1


class Unreadable(io.BytesIO):
    """A file whose reads fail, as on a bad sector."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_archive_that_cannot_be_read_fails_when_the_store_is_well(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = store(runtime, batch, samples.archive(fakes.pictures(2)))
    monkeypatch.setattr(type(runtime.blobs), "open", lambda self, batch_id, name: Unreadable(b"PK" * 100))
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert (found.state, found.error_code, found.losses) == (ArchiveState.FAILED, "blob_unreadable", 0)


def test_an_archive_waits_while_the_store_fails_and_goes_behind_the_others(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (store(runtime, batch, samples.archive({f"{seed}.jpg": samples.jpeg(seed)})) for seed in (10, 20))
    open_archive, tried = entries.open_archive, []

    def fails_twice(blobs: LocalStore, batch_id: uuid.UUID, sha256: str, *rest: Any) -> Any:
        tried.append(sha256)
        if len(tried) <= 2:
            raise errors.Transient("storage_failed", "gone")
        return open_archive(blobs, batch_id, sha256, *rest)

    monkeypatch.setattr(entries, "open_archive", fails_twice)
    monkeypatch.setattr(unpack, "_PAUSE_SECONDS", 0.0)
    unpack.drain(runtime)
    assert tried == [first.sha256, second.sha256] * 2, "none is tried again before the others"
    assert [get(runtime, archive).state for archive in (first, second)] == [ArchiveState.DONE] * 2
    assert [get(runtime, archive).losses for archive in (first, second)] == [0, 0]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_inflates_without_bound_is_refused(
    runtime: ClassifyRuntime, batch: Batch, compression: int
) -> None:
    store(runtime, batch, samples.archive({"a.bmp": b"BM" + bytes(1_000_000)}, compression))
    unpack.drain(runtime)
    assert refusals(runtime, batch) == {"a.bmp": "unsupported_compression"}


def test_two_stores_of_the_same_bytes_keep_one_archive(runtime: ClassifyRuntime, batch: Batch) -> None:
    data = samples.archive(fakes.pictures(2))
    threads = [threading.Thread(target=store, args=(runtime, batch, data)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = sa.select(sa.func.count()).select_from(Archive)
    assert db.read(runtime.sessions, lambda session: session.scalar(wanted)) == 1
    unpack.drain(runtime)
    assert fakes.get(runtime.sessions, batch).received == 2


def test_what_is_no_zip_fails_the_archive(runtime: ClassifyRuntime, batch: Batch) -> None:
    archive = store(runtime, batch, b"PK\x03\x04 but nothing else")
    db.transact(runtime.sessions, batches.seal, batch.id, by=OPERATOR)
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert found.state is ArchiveState.FAILED and found.error_code == "bad_archive"
    assert fakes.get(runtime.sessions, batch).finished_at is not None


def test_an_endless_list_of_entries_fails_the_archive(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MAX_DIRECTORY_BYTES", 100)
    archive = store(runtime, batch, samples.archive(fakes.pictures(5)))
    unpack.drain(runtime)
    assert get(runtime, archive).error_code == "too_many_entries"


def test_unpacking_resumes_where_it_was_stopped(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "PAGE_IMAGES", 3)
    archive = store(runtime, batch, samples.archive(fakes.pictures(10)))
    receive, calls = arrivals.receive, []

    def dies(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise errors.Transient("storage_failed", "gone")
        return receive(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(arrivals, "receive", dies)
    monkeypatch.setattr(unpack, "_PAUSE_SECONDS", 0.0)
    unpack.drain(runtime)
    found = get(runtime, archive)
    assert found.state is ArchiveState.DONE and (found.entries, found.received) == (10, 10)
    assert len(fakes.images(runtime.sessions, batch)) == 10


def test_a_cancelled_batch_stops_its_unpacking(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = store(runtime, batch, samples.archive(fakes.pictures(4)))
    db.transact(runtime.sessions, batches.cancel, batch.id, by=OPERATOR)
    unpack.drain(runtime)
    db.transact(runtime.sessions, batches.sweep, batch.id)
    assert get(runtime, archive).state is ArchiveState.CANCELLED
    found = fakes.get(runtime.sessions, batch)
    assert found.received == 0 and found.finished_at is not None


def test_identical_archives_are_unpacked_once(runtime: ClassifyRuntime, batch: Batch) -> None:
    data = samples.archive(fakes.pictures(2))
    first = store(runtime, batch, data)
    unpack.drain(runtime)
    assert store(runtime, batch, data).id == first.id
    assert fakes.get(runtime.sessions, batch).archives_open == 0
