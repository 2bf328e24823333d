"""Archives that attack: each costs little, is refused by entry or as a whole with a clear reason, and ends nothing."""

import os
import struct
import time
import zlib
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dermq import db
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Refusal
from dermq.storage.local import LocalStore
from tests import fakes, samples, zips
from tests.integration.test_unpack import batch, get, refusals, runtime, store
from tests.zips import Member
from worker.classify.runtime import ClassifyRuntime
from worker.intake import entries, unpack

__all__ = ["batch", "runtime"]

GOOD = Member(b"good.jpg", samples.jpeg(1))
BOMB = zips.deflated(samples.encoded(samples.picture(), "BMP") + bytes(40_000_000))


def take(runtime: ClassifyRuntime, batch: Batch, data: bytes) -> Archive:
    archive = store(runtime, batch, data)
    unpack.drain(runtime)
    return get(runtime, archive)


REFUSED: dict[str, tuple[Member, str]] = {
    "an empty name": (Member(b"", samples.jpeg(2)), "bad_name"),
    "a blank name": (Member(b"  ", samples.jpeg(2)), "bad_name"),
    "a name with NUL": (Member(b"a.jpg\0.exe", samples.jpeg(2)), "bad_name"),
    "a name with a line feed": (Member(b"a\nb.jpg", samples.jpeg(2)), "bad_name"),
    "an absolute path": (Member(b"/etc/a.jpg", samples.jpeg(2)), "bad_name"),
    "a drive": (Member(b"C:\\a.jpg", samples.jpeg(2)), "bad_name"),
    "a path upwards": (Member(b"a/../../b.jpg", samples.jpeg(2)), "bad_name"),
    "a path upwards with backslashes": (Member(b"..\\b.jpg", samples.jpeg(2)), "bad_name"),
    "a symbolic link": (Member(b"link.jpg", b"good.jpg", made_by=zips.UNIX, attributes=zips.SYMLINK), "not_a_file"),
    "a device": (Member(b"dev.jpg", b"", made_by=zips.UNIX, attributes=0o020666 << 16), "not_a_file"),
    "an archive": (Member(b"inner.zip", zips.build([GOOD])), "archive"),
    "an encrypted entry": (Member(b"a.jpg", samples.jpeg(2), flags=zips.ENCRYPTED), "encrypted"),
    "a method that is not known": (Member(b"a.jpg", samples.jpeg(2), method=98), "unsupported_compression"),
    "another name in its own header": (
        Member(b"a.jpg", samples.jpeg(2), local_name=b"b.jpg"),
        "damaged_entry",
    ),
    "another method in its own header": (
        Member(b"a.jpg", samples.jpeg(2), local_method=zips.DEFLATED),
        "damaged_entry",
    ),
    "another size in its own header": (Member(b"a.jpg", samples.jpeg(2), local_size=7), "damaged_entry"),
    "more bytes than it says": (
        Member(b"a.bmp", samples.encoded(samples.picture(), "BMP"), zips.DEFLATED, size=200, local_size=200),
        "damaged_entry",
    ),
    "fewer bytes than it says": (
        Member(b"a.bmp", samples.encoded(samples.picture(), "BMP"), zips.DEFLATED, size=90_000, local_size=90_000),
        "damaged_entry",
    ),
    "another checksum": (Member(b"a.jpg", samples.jpeg(2), crc=1), "damaged_entry"),
    "bytes that do not unpack": (
        Member(b"a.jpg", samples.jpeg(2), zips.DEFLATED, packed=b"\xff" * 300, local_size=0),
        "damaged_entry",
    ),
    "blocks without content": (
        Member(b"a.jpg", b"", zips.DEFLATED, packed=b"\0\0\0\xff\xff" * 40_000 + b"\x03\0"),
        "damaged_entry",
    ),
    "an offset outside": (Member(b"a.jpg", samples.jpeg(2), offset=2**31), "damaged_entry"),
    "more packed bytes than the archive": (Member(b"a.jpg", samples.jpeg(2), compressed=2**31), "damaged_entry"),
    "sizes of ZIP64 that are missing": (Member(b"a.jpg", samples.jpeg(2), size=0xFFFFFFFF), "damaged_entry"),
    "a size of ZIP64 that is a lie": (
        Member(b"a.jpg", samples.jpeg(2), compressed=0xFFFFFFFF, extra=zips.field(1, struct.pack("<Q", 2**63))),
        "damaged_entry",
    ),
    "a size over the limit": (Member(b"a.jpg", samples.jpeg(2), size=2**31), "image_too_large"),
    "another disk": (Member(b"a.jpg", samples.jpeg(2), disk=7), "damaged_entry"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_entry_is_refused_and_those_beside_it_are_received(
    runtime: ClassifyRuntime, batch: Batch, kind: str
) -> None:
    hostile, code = REFUSED[kind]
    others = [GOOD, hostile, Member(b"last.jpg", samples.jpeg(3))]
    found = take(runtime, batch, zips.build(others))
    assert (found.state, found.received, found.refused, found.losses) == (ArchiveState.DONE, 2, 1, 0)
    assert list(refusals(runtime, batch).values()) == [code]
    assert isinstance(runtime.blobs, LocalStore) and not any((runtime.blobs.root / "incoming").iterdir())


ACCEPTED: dict[str, bytes] = {
    "a version that is not known": zips.build([replace(GOOD, version=99)]),
    "a name that is marked as UTF-8 but is not": zips.build([replace(GOOD, name=b"\xe4\xe4.jpg", flags=zips.UTF8)]),
    "extra fields that cannot be followed": zips.build(
        [replace(GOOD, extra=b"\x75\x70\xff\xff!", local_extra=b"\xff\xff\xff")]
    ),
    "huge extra fields": zips.build([replace(GOOD, extra=bytes(65_535), local_extra=bytes(65_535))]),
    "huge comments": zips.build([replace(GOOD, comment=bytes(65_535))], comment=b"c" * 65_535),
    "a comment with the signature of the end": zips.build([GOOD], comment=b"PK\x05\x06" * 100),
    "a number of entries that is a lie": zips.build([GOOD], count=40_000),
    "sizes behind the entry": zips.build([replace(GOOD, flags=zips.DESCRIPTOR)]),
    "a list in ZIP64": zips.build([GOOD], zip64=True),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_is_odd_but_whole_is_taken(runtime: ClassifyRuntime, batch: Batch, kind: str) -> None:
    found = take(runtime, batch, ACCEPTED[kind])
    assert (found.state, found.received, found.refused) == (ArchiveState.DONE, 1, 0), refusals(runtime, batch)


FAILED: dict[str, tuple[bytes, str]] = {
    "entries at the same place": (
        zips.build([GOOD, *[replace(GOOD, name=b"%d.jpg" % n, same_place_as_before=True) for n in range(50)]]),
        "overlapping_entries",
    ),
    "an entry that contains the others": (
        zips.build([Member(b"outer.bmp", b"", packed=zips.build([GOOD])[:200], size=200, compressed=900), GOOD]),
        "overlapping_entries",
    ),
    "an entry that begins within another one": (
        zips.build([GOOD, Member(b"a.jpg", samples.jpeg(2), offset=1)]),
        "overlapping_entries",
    ),
    "more bytes than an archive may unpack to": (
        zips.build([Member(b"%d.bmp" % n, b"", zips.DEFLATED, packed=b"\3\0", size=2**32 - 2) for n in range(20)]),
        "archive_bomb",
    ),
    "a list that is damaged": (zips.build([GOOD, GOOD]).replace(b"PK\x01\x02", b"PK\x01\x03"), "bad_archive"),
    "a list that is damaged at its second entry": (
        b"PK\x01\x03".join(zips.build([GOOD, GOOD]).rsplit(b"PK\x01\x02", 1)),
        "bad_archive",
    ),
    "a list that is larger than the file": (zips.build([GOOD], list_size=2**31), "bad_archive"),
    "a part of a split archive": (zips.build([GOOD], disk=3), "split_archive"),
}


@pytest.mark.parametrize("kind", FAILED)
def test_an_archive_that_attacks_as_a_whole_fails_before_anything_is_unpacked(
    runtime: ClassifyRuntime, batch: Batch, kind: str
) -> None:
    data, code = FAILED[kind]
    found = take(runtime, batch, data)
    assert (found.state, found.error_code, found.entries) == (ArchiveState.FAILED, code, 0)
    assert fakes.get(runtime.sessions, batch).archives_open == 0


def test_whatever_an_entry_raises_refuses_this_entry(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    crc32 = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data, *rest: 1 / 0 if b"bad" in data else crc32(data, *rest))
    found = take(runtime, batch, zips.build([GOOD, Member(b"bad.jpg", samples.jpeg(2) + b"bad", crc=1)]))
    assert (found.state, found.received, found.refused) == (ArchiveState.DONE, 1, 1)
    assert refusals(runtime, batch) == {"bad.jpg": "damaged_entry"}


def limited(runtime: ClassifyRuntime, **limits: Any) -> ClassifyRuntime:
    return replace(runtime, settings=runtime.settings.model_copy(update=limits))


def test_more_files_than_the_batch_has_room_for_fail_the_archive_at_once(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "LEAST_IMAGES_LISTED", 5)
    small = limited(runtime, max_images_per_batch=6)
    fakes.add(small.sessions, small.blobs, small.settings, batch, fakes.pictures(1))
    six = [replace(GOOD, name=b"%d.jpg" % n) for n in range(6)]
    found = take(small, batch, zips.build(six))
    assert (found.state, found.error_code, found.entries) == (ArchiveState.FAILED, "too_many_entries", 0)
    assert "6 files" in (found.error_detail or "") and "accepts 5" in (found.error_detail or "")
    left = [Member(b"%d/" % n) for n in range(40)]
    assert take(small, batch, zips.build([*six[:5], *left])).received == 5


def test_an_archive_of_folders_alone_is_capped_too(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "LEAST_IMAGES_LISTED", 5)
    small = limited(runtime, max_images_per_batch=5)
    found = take(small, batch, zips.build([Member(b"%d/" % n) for n in range(51)]))
    assert (found.state, found.error_code) == (ArchiveState.FAILED, "too_many_entries")
    assert "51 entries" in (found.error_detail or "")


def test_an_archive_may_list_a_thousand_files_for_a_batch_that_is_full(runtime: ClassifyRuntime, batch: Batch) -> None:
    small = limited(runtime, max_images_per_batch=1)
    fakes.add(small.sessions, small.blobs, small.settings, batch, {"0.jpg": samples.jpeg(7)})
    found = take(small, batch, zips.build([replace(GOOD, name=b"%d.jpg" % n) for n in range(3)]))
    assert (found.state, found.refused) == (ArchiveState.DONE, 3)


def test_an_archive_that_is_resumed_is_not_counted_against_what_it_brought(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "LEAST_IMAGES_LISTED", 1)
    monkeypatch.setattr(entries, "PAGE_IMAGES", 2)
    monkeypatch.setattr("dermq.queue.archive_claims.SLICE_SECONDS", 0.0)
    small = limited(runtime, max_images_per_batch=6)
    found = take(small, batch, zips.build([replace(GOOD, name=b"%d.jpg" % n) for n in range(6)]))
    assert (found.state, found.received) == (ArchiveState.DONE, 6)


def test_a_bomb_of_one_entry_is_not_unpacked_beyond_what_it_says(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    crc32 = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data, *rest: unpacked.append(len(data)) or crc32(data, *rest))
    liar = Member(b"bomb.bmp", b"", zips.DEFLATED, packed=BOMB, size=1_000_000)
    found = take(runtime, batch, zips.build([liar, GOOD]))
    assert (found.received, refusals(runtime, batch)) == (1, {"bomb.bmp": "damaged_entry"})
    assert sum(unpacked) < 2_000_000


def test_what_is_refused_by_its_leading_bytes_is_not_written_and_only_what_is_kept_is_synced(
    runtime: ClassifyRuntime, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, written = list[int](), list[object]()
    fsync, receive = os.fsync, LocalStore.receive
    data = zips.build([*[Member(b"%d.txt.jpg" % n, b"text" * n) for n in range(1, 100)], GOOD])
    archive = store(runtime, batch, data)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor) or fsync(descriptor))
    monkeypatch.setattr(LocalStore, "receive", lambda self: written.append(self) or receive(self))
    unpack.drain(runtime)
    assert (get(runtime, archive).refused, get(runtime, archive).received) == (99, 1)
    assert (len(written), len(synced)) == (1, 2), (
        "the image alone is written; it and the folder of its batch are synced"
    )


def test_refused_entries_are_cheap(runtime: ClassifyRuntime, batch: Batch) -> None:
    count = 5_000
    data = zips.build([Member(b"%05d.jpg" % n, b"not an image %d" % n, zips.DEFLATED) for n in range(count)])
    archive = store(runtime, batch, data)
    began = time.process_time()
    unpack.drain(runtime)
    seconds = time.process_time() - began
    assert get(runtime, archive).refused == fakes.get(runtime.sessions, batch).refused == count
    assert seconds < count / 1_000, f"{count / seconds:,.0f} refused entries a second of processor time"


def test_entries_of_one_name_are_refused_one_by_one(runtime: ClassifyRuntime, batch: Batch) -> None:
    same = [Member(b"1.jpg", samples.jpeg(n)) for n in range(4)]
    tabs = [Member(b"a\tb.jpg", samples.jpeg(8)), Member(b"a\nb.jpg", samples.jpeg(9))]
    found = take(runtime, batch, zips.build([*same, *tabs]))
    names = sa.select(Refusal.name).where(Refusal.batch_id == batch.id).order_by(Refusal.name)
    rows = db.read(runtime.sessions, lambda session: list(session.scalars(names)))
    assert (found.received, found.refused, fakes.get(runtime.sessions, batch).refused) == (1, 5, 5)
    assert rows == ["1.jpg"] * 3 + ["a\\nb.jpg", "a\\tb.jpg"]
