"""How files enter a batch: from a name and a stream of bytes to an arrival, and from arrivals to images or refusals.

The web and the unpacker check and receive here. Who adds images locks the batch first and touches no other image.
"""

import contextlib
import hashlib
import itertools
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dermq import batches, db, errors, formats, models, notes, quotas, transitions, zips
from dermq.formats import extensions
from dermq.models import Archive, Batch, Image, Refusal
from dermq.notes import Note
from dermq.settings import Settings
from dermq.storage import BlobStore, Incoming

_WITH_FILES = (sa.select(Image.id), sa.select(Archive.id).where(Archive.sha256.is_not(None)))
_LONGEST_NORMALISED = 4 * models.NAME_LENGTH
"""NFC makes a name shorter, to a quarter at most: no longer name could be accepted. The time that it takes grows with
the square of the length, which a name of 64 kB shows."""
KEPT_SECONDS = 1800
"""A row must be written so soon after its file was kept: the reaper collects files without a row after an hour."""


@dataclass(frozen=True)
class Arrival:
    """A whole, checked image file that waits to be put into a batch."""

    name: str
    file: Incoming
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of one file: received or unchanged at a position, or refused with an error."""

    name: str
    position: int | None = None
    unchanged: bool = False
    error: errors.DermqError | None = None


def check_name(name: str) -> str:
    """Return ``name`` normalised (NFC, forward slashes). Raises Rejected unless it is a relative path in bounds."""
    name = normalise_name(name)
    if not name or name.isspace():
        raise errors.Rejected("bad_name", "The name is empty; a relative path of 1 to 255 characters is accepted.")
    if len(name) > models.NAME_LENGTH:
        raise errors.Rejected(
            "bad_name", f"The name has {len(name)} characters; at most {models.NAME_LENGTH} are accepted."
        )
    if name != escape_controls(name):
        raise errors.Rejected("bad_name", "The name holds control characters; printable characters are accepted.")
    parts = name.split("/")
    if ".." in parts or "." in parts or "" in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise errors.Rejected(
            "bad_name", "The name is not a plain relative path; parts may not be empty, '.', '..' or a drive."
        )
    return name


def normalise_name(name: str) -> str:
    """Return ``name`` in NFC and with forward slashes. One that is far too long is not normalised."""
    if len(name) <= _LONGEST_NORMALISED:
        name = unicodedata.normalize("NFC", name)
    return name.replace("\\", "/")


def escape_controls(text: str) -> str:
    """Return ``text`` with an escape for each character that no database or terminal should be given: ``a\\tb``.

    Names that differ in such a character stay different, so that no two refused files look like one.
    """
    if text.isprintable():
        return text  # the usual case, and much faster
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs"):
        return character.encode("unicode_escape").decode("ascii")
    return character


@contextlib.contextmanager
def receive_file(blobs: BlobStore, name: str, chunks: Iterable[bytes], settings: Settings) -> Iterator[Arrival]:
    """Write ``chunks`` to an incoming file and check it; the file is gone after the block unless it was kept.

    A file that its leading bytes refuse is not written at all. Raises Rejected (TooLarge, UnsupportedFormat) for what
    is refused and OutOfSpace when the disk is full.
    """
    name = check_name(name)
    left = iter(chunks)
    head = _read_head(left, settings)
    found = check_head(head[: formats.HEAD_BYTES], settings)
    with blobs.receive() as file:
        for chunk in itertools.chain([head], left):
            if file.bytes + len(chunk) > settings.max_image_bytes:
                raise make_too_large(settings)
            file.write(chunk)
        file.finish()
        yield Arrival(name, file, extensions.note_contradiction(name, found))


def _read_head(chunks: Iterator[bytes], settings: Settings) -> bytes:
    """Return the first chunks of a file, joined, as far as its leading bytes reach. Raises TooLarge."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) > settings.max_image_bytes:
            raise make_too_large(settings)
        if len(head) >= formats.HEAD_BYTES:
            break
    return head


def check_head(head: bytes, settings: Settings) -> formats.ImageFormat:
    """Return the format of a file by its leading bytes. What these do not show, only a decoder can find.

    Raises Rejected for an empty file, UnsupportedFormat and TooLarge as ``formats.check`` does.
    """
    if not head:
        raise errors.Rejected("empty_file", "The file has 0 bytes.")
    kind = "a ZIP archive" if zips.is_zip(head) else zips.find_other_archive(head)
    if kind is not None:
        raise errors.UnsupportedFormat(
            "archive",
            f"The content is {kind}, not an image. Archives inside archives are not unpacked; "
            "a ZIP of images goes to the batch's archive address.",
        )
    return formats.check(head, max_pixels=settings.max_image_pixels, max_side=settings.max_image_side)


def make_too_large(settings: Settings) -> errors.TooLarge:
    """Return the error for an image file over the limit."""
    return errors.TooLarge(
        "image_too_large", f"The file has more than {settings.max_image_bytes:,} bytes, the most that is accepted."
    )


def count_room(session: Session, batch_id: uuid.UUID, settings: Settings) -> int:
    """Return how many more images a batch may take. Raises NotFound when it was deleted."""
    batch = session.get(Batch, batch_id)
    if batch is None or batch.deleted_at is not None:
        raise errors.NotFound("no_batch", f"There is no batch {batch_id}.")
    return _measure_room(batch, settings).images


def keep(
    sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID, arrived: Sequence[Arrival], settings: Settings
) -> None:
    """Keep the files of arrivals, before the transaction that receives them. Raises Transient as ``keep_files`` does.

    Files that the batch will not take are not kept. What is kept and not received after all is an orphan, which the
    reaper collects.
    """
    wanted = db.read(sessions, _select_wanted, batch_id, arrived, settings)
    if wanted:
        keep_files(sessions, blobs, batch_id, [arrival.file for arrival in wanted])


def keep_files(sessions: db.Sessions, blobs: BlobStore, batch_id: uuid.UUID, files: Sequence[Incoming]) -> None:
    """Keep files of a batch, outside any transaction; the first files of all begin the store.

    Raises Transient when there were files before and the store is not the one that has them.
    """
    if not blobs.is_begun() and not db.read(sessions, _has_files):
        blobs.begin()
    blobs.keep(batch_id, files)


def check_kept(file: Incoming) -> None:
    """Raise Transient unless a file was kept a short time ago. Called under the lock under which orphans are removed.

    A program that was suspended between file and row would otherwise name a file that the reaper has collected.
    """
    if file.kept_at is None or time.time() - file.kept_at > KEPT_SECONDS:
        raise errors.Transient("upload_stalled", "The upload was held up for too long; send the file again.")


def receive(
    session: Session,
    batch_id: uuid.UUID,
    arrived: Sequence[Arrival],
    settings: Settings,
    *,
    refused: Sequence[tuple[str, errors.DermqError]] = (),
    archive_id: uuid.UUID | None = None,
) -> list[Verdict]:
    """Add files that were kept to a batch and give a verdict on each, in order; note the refusals of the others.

    Only rows are written here; ``keep`` comes first. The same name with the same bytes changes nothing; with other
    bytes, or over a limit, the file is refused and the refusal noted. Raises NotFound and Conflict when the batch
    takes no images at all, TooMany and OutOfSpace when its lab has used up a quota, Transient when a file was kept too
    long ago.
    """
    batch = batches.lock(session, batch_id)
    batches.check_open(batch, from_archive=archive_id is not None)
    verdicts, fresh = _decide_verdicts(session, batch, arrived, settings)
    if fresh:
        for arrival, _ in fresh:
            check_kept(arrival.file)
        if archive_id is None:  # an archive waits before its entries are unpacked, see ``quotas.check_unpacking``
            quotas.check_waiting(session, batch.lab_id, settings, images=len(fresh))
        fresh_rows = [_make_image_row(arrival, position) for arrival, position in fresh]
        kept_bytes = transitions.add_images(session, batch, fresh_rows)
        if archive_id is None:
            quotas.check_kept(session, batch.lab_id, settings, kept_bytes=kept_bytes)
    conflicts = [
        (verdict.name, verdict.error, None if archive_id else arrival.file.sha256)
        for verdict, arrival in zip(verdicts, arrived, strict=True)
        if verdict.error is not None
    ]
    rows = [_make_refusal_row(name, error, archive_id, None) for name, error in refused]
    rows += [_make_refusal_row(name, error, archive_id, sha256) for name, error, sha256 in conflicts]
    _add_refusals(session, batch, rows)
    transitions.note_change(batch, by_lab=True)
    return verdicts


def refuse(
    session: Session,
    batch_id: uuid.UUID,
    name: str,
    error: errors.DermqError,
    content: str,
) -> None:
    """Keep the refusal of a file that never became an arrival.

    ``content`` identifies the bytes that came, so that the same file sent again adds nothing and another one does.
    """
    batch = batches.lock(session, batch_id)
    batches.check_open(batch)
    _add_refusals(session, batch, [_make_refusal_row(name, error, None, content)])
    transitions.note_change(batch, by_lab=True)


@dataclass(frozen=True)
class _Room:
    """How many more images may come, and the error when none may."""

    images: int
    error: errors.DermqError

    def take_one(self) -> "_Room":
        return _Room(self.images - 1, self.error)


def _measure_room(batch: Batch, settings: Settings) -> _Room:
    most = settings.max_images_per_batch
    full = errors.TooLarge("batch_full", f"The batch holds {most:,} images, the most that is accepted.")
    return _Room(most - batch.received, full)


def _decide_verdicts(
    session: Session, batch: Batch, arrived: Sequence[Arrival], settings: Settings
) -> tuple[list[Verdict], list[tuple[Arrival, int]]]:
    """Return a verdict on each arrival, and those that are to be added with their positions."""
    known = _find_known_names(session, batch.id, [arrival.name for arrival in arrived])
    room = _measure_room(batch, settings)
    verdicts: list[Verdict] = []
    fresh: list[tuple[Arrival, int]] = []
    for arrival in arrived:
        verdict = _decide_verdict(arrival, known, room, position=batch.received + len(fresh) + 1)
        if verdict.error is None and not verdict.unchanged and verdict.position is not None:
            fresh.append((arrival, verdict.position))
            known[arrival.name] = (arrival.file.sha256, verdict.position)
            room = room.take_one()
        verdicts.append(verdict)
    return verdicts, fresh


def _decide_verdict(arrival: Arrival, known: dict[str, tuple[str, int]], room: _Room, *, position: int) -> Verdict:
    if arrival.name in known:
        sha256, at = known[arrival.name]
        if sha256 == arrival.file.sha256:
            return Verdict(arrival.name, at, unchanged=True)
        taken = errors.Conflict(
            "name_taken", "The batch has another image of this name; names are unique in a batch and bytes stay."
        )
        return Verdict(arrival.name, error=taken)
    if room.images <= 0 or arrival.file.kept_at is None:  # not kept: there was no room when it came
        return Verdict(arrival.name, error=room.error)
    return Verdict(arrival.name, position)


def _select_wanted(
    session: Session, batch_id: uuid.UUID, arrived: Sequence[Arrival], settings: Settings
) -> Sequence[Arrival]:
    """Return the arrivals that the batch would take now; all of them when the batch is about to be created."""
    batch = session.get(Batch, batch_id)
    if batch is None:
        return arrived
    if batch.deleted_at is not None or batch.cancelled_at is not None:
        return ()
    known = _find_known_names(session, batch_id, [arrival.name for arrival in arrived])
    new = [arrival for arrival in arrived if arrival.name not in known]
    return new[: max(0, _measure_room(batch, settings).images)]


def _has_files(session: Session) -> bool:
    return any(session.scalar(sa.select(one.limit(1).exists())) for one in _WITH_FILES)


def _find_known_names(session: Session, batch_id: uuid.UUID, names: list[str]) -> dict[str, tuple[str, int]]:
    found = session.execute(
        sa.select(Image.name, Image.sha256, Image.position).where(Image.batch_id == batch_id, Image.name.in_(names))
    )
    return {name: (sha256, position) for name, sha256, position in found}


def _make_image_row(arrival: Arrival, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "name": arrival.name,
        "sha256": arrival.file.sha256,
        "bytes": arrival.file.bytes,
        "notes": notes.as_json(arrival.notes),
    }


def _make_refusal_row(
    name: str, error: errors.DermqError, archive_id: uuid.UUID | None, content: str | None
) -> dict[str, Any]:
    """Return the columns of a refusal. One with a ``content`` is kept once, as its file may be sent again."""
    same = None if content is None else hashlib.sha256(repr((name, error.code, content)).encode()).hexdigest()
    return {
        "archive_id": archive_id,
        "name": escape_controls(name)[: models.Refusal.name.type.length],
        "code": error.code,
        "detail": error.detail[:1000],
        "fingerprint": same,
        "created_at": datetime.now(UTC),
    }


def _add_refusals(session: Session, batch: Batch, rows: list[dict[str, Any]]) -> None:
    """Keep refusals, but those of files that were sent again."""
    wanted = [row["fingerprint"] for row in rows if row["fingerprint"] is not None]
    known = set[str | None]()
    if wanted:
        same = sa.select(Refusal.fingerprint).where(Refusal.batch_id == batch.id, Refusal.fingerprint.in_(wanted))
        known = set(session.scalars(same))
    fresh = []
    for row in rows:  # a request may hold the same file twice
        if row["fingerprint"] not in known:
            fresh.append(row)
        if row["fingerprint"] is not None:
            known.add(row["fingerprint"])
    transitions.add_refusals(session, batch, fresh)
