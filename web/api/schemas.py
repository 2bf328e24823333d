"""The schemas of batches, archives and refusals in answers of the API, and how they are made from rows."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from flask import url_for
from pydantic import BaseModel, ConfigDict, Field

from dermq import models, progress
from dermq.lifecycle import OPEN_ARCHIVE, ArchiveState, BatchState
from web.api import examples
from web.reports import registry


class Shape(BaseModel):
    """The base of all schemas of answers."""

    model_config = ConfigDict(frozen=True)


class Counts(Shape):
    """The number of a batch's images in each state."""

    received: int = Field(description="Images accepted: queued + running + done + failed + cancelled.")
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    refused: int = Field(description="Files that were not accepted; not counted in `received`.")
    archives_open: int = Field(description="Archives that are being received, wait or are being unpacked.")


class Seconds(Shape):
    """The shortest and the longest time in which the images received so far are expected to be done."""

    low: int
    high: int


class BundleName(Shape):
    """The model that classifies a batch."""

    name: str
    version: str
    sha256: str = Field(description="SHA-256 of the bundle's card, which lists the SHA-256 of every file.")


def _describe_report_links(schema: dict[str, Any]) -> None:
    """Add the link of each report format to the schema."""
    del schema["additionalProperties"]
    for report_format in registry.FORMATS:
        schema["properties"][report_format.key] = {
            "title": report_format.key.replace("_", " ").title(),
            "type": "string",
        }
        schema["required"].append(report_format.key)


class BatchLinks(Shape):
    """Links to the calls of a batch."""

    # The links to reports come from their registry.
    model_config = ConfigDict(extra="allow", json_schema_extra=_describe_report_links)

    self: str
    images: str
    refusals: str
    archives: str
    archive: str
    seal: str
    cancel: str
    retry: str


class Batch(Shape):
    """The status of a batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH]})

    id: uuid.UUID
    name: str
    state: BatchState
    counts: Counts
    images_per_second: float | None = Field(description="As last measured; null when it is not known.")
    eta_seconds: Seconds | None = Field(description="Null when nothing waits or the rate is not known.")
    bundle: BundleName
    urgent: bool
    options: dict[str, Any]
    metadata: dict[str, Any]
    created_at: datetime
    sealed_at: datetime | None
    cancelled_at: datetime | None
    finished_at: datetime | None
    links: BatchLinks

    @classmethod
    def of(cls, row: models.Batch) -> "Batch":
        """Return the status of a batch that was loaded with its bundle."""
        return cls.model_validate(_read_status(row))


class Refusal(Shape):
    """A file that was not accepted, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REFUSAL]})

    name: str
    code: str
    detail: str
    archive_id: uuid.UUID | None = Field(description="The archive that held the file; null when it came by itself.")
    created_at: datetime

    @classmethod
    def of(cls, row: models.Refusal) -> "Refusal":
        return cls.model_validate(row, from_attributes=True)


class CreatedBatch(Batch):
    """The status of a new batch and what was refused of the files that came with it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**examples.BATCH, "refusals": [examples.REFUSAL]}]})

    refusals: list[Refusal]

    @classmethod
    def with_refusals(cls, row: models.Batch, refusals: Sequence[models.Refusal]) -> "CreatedBatch":
        return cls.model_validate({**_read_status(row), "refusals": [Refusal.of(refusal) for refusal in refusals]})


class BatchPage(Shape):
    """Some batches, newest first."""

    batches: list[Batch]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last page.")


class RefusalPage(Shape):
    """Some refusals, in their order."""

    refusals: list[Refusal]
    next_cursor: str | None


class Failure(Shape):
    """The error of an image or an archive."""

    code: str
    detail: str


class ArchiveLinks(Shape):
    """Links to what belongs to an archive."""

    self: str
    batch: str


class Archive(Shape):
    """A ZIP archive of a batch, and the result for its entries. Each refused entry is a refusal of the batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ARCHIVE]})

    id: uuid.UUID
    state: ArchiveState
    sha256: str | None
    bytes: int
    encoding: str | None = Field(
        description="The encoding of names that are not in Unicode, as given or found; null when all are."
    )
    entries: int = Field(description="Entries read so far.")
    received: int
    unchanged: int = Field(description="Entries that the batch had already under the same name with the same bytes.")
    refused: int
    skipped: int = Field(
        description="Folders, files that operating systems add to archives, and texts or tables beside images."
    )
    skipped_names: list[str] = Field(description="Names of the first hundred skipped entries.")
    waiting: Failure | None = Field(
        description="Why the archive waits although its turn has come, such as `storage_full`. It goes on by itself."
    )
    error: Failure | None = Field(description="Why the archive failed.")
    created_at: datetime
    links: ArchiveLinks

    @classmethod
    def of(cls, row: models.Archive) -> "Archive":
        own = ("id", "state", "sha256", "bytes", "encoding", "entries", "received", "unchanged", "refused", "skipped")
        ids: dict[str, Any] = {"batch_id": row.batch_id, "archive_id": row.id}
        failure = make_failure(row.error_code, row.error_detail)
        is_open = row.state in OPEN_ARCHIVE
        return cls(
            **{name: getattr(row, name) for name in own},
            skipped_names=row.skipped_names or [],
            waiting=failure if is_open else None,
            error=None if is_open else failure,
            created_at=row.created_at,
            links=ArchiveLinks(self=url_for("uploads.get_archive", **ids), batch=make_batch_url(row.batch_id)),
        )


class ArchivePage(Shape):
    """Some archives of a batch, oldest first."""

    archives: list[Archive]
    next_cursor: str | None


def make_batch_url(batch_id: uuid.UUID) -> str:
    """Return the address of a batch's status."""
    return url_for("batches.get_batch", batch_id=batch_id)


def make_failure(code: str | None, detail: str | None) -> Failure | None:
    """Return the error of an image or an archive, or None."""
    return None if code is None else Failure(code=code, detail=detail or "")


def _read_status(row: models.Batch) -> dict[str, Any]:
    own = ("id", "name", "state", "urgent", "options", "created_at", "sealed_at", "cancelled_at", "finished_at")
    left = progress.estimate_seconds_left(row)
    return {
        **{name: getattr(row, name) for name in own},
        "counts": {name: getattr(row, name) for name in Counts.model_fields},
        "images_per_second": None if row.rate_smoothed is None else round(row.rate_smoothed, 1),
        "eta_seconds": left and asdict(left),
        "bundle": {"name": row.bundle.name, "version": row.bundle.version, "sha256": row.bundle.sha256},
        "metadata": row.metadata_,
        "links": _make_links(row.id),
    }


def _make_links(batch_id: uuid.UUID) -> BatchLinks:
    def to(endpoint: str) -> str:
        return url_for(endpoint, batch_id=batch_id)

    return BatchLinks(
        self=to("batches.get_batch"),
        images=to("images.get_images"),
        refusals=to("uploads.get_refusals"),
        archives=to("uploads.get_archives"),
        archive=to("uploads.put_archive"),
        seal=to("batches.seal_batch"),
        cancel=to("batches.cancel_batch"),
        retry=to("batches.retry_batch"),
        **{report_format.key: to(f"reports.{report_format.key}") for report_format in registry.FORMATS},
    )
