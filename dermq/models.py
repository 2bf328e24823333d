"""The tables, the same on PostgreSQL and SQLite. A test compares them with the result of the migrations."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dermq import lifecycle
from dermq.db import UtcDateTime
from dermq.lifecycle import ArchiveState, ImageState

BigId = BigInteger().with_variant(Integer, "sqlite")
Sha256 = String(64)

MOST_IDS = 2**63
"""Ids are smaller than this; a database raises an error when it is asked for a greater one."""
NAME_LENGTH = 255
"""Longest name of a batch, an image or a token, in characters."""


def _make_enum(kind: type[StrEnum], name: str) -> Enum:
    """Return a column type that stores the value of an enum as text, with a CHECK."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        uuid.UUID: Uuid(),
    }


class Lab(Base):
    """A laboratory, which submits images and owns batches and access tokens."""

    __tablename__ = "lab"
    __table_args__ = (CheckConstraint("weight > 0", name="weight_positive"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    """Share of the queue relative to other labs."""
    tag: Mapped[float] = mapped_column(default=0.0)
    """Place in the fair order (virtual time): where this lab's last turn ended, in images divided by weight."""
    urgent_turns: Mapped[int] = mapped_column(default=0)
    """Turns in a row that urgent batches got while other batches of the lab waited; at most three."""
    max_waiting_images: Mapped[int | None]
    """Quota: images that may wait at one time. Unset, here and below, means the value of the settings."""
    max_kept_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Quota: bytes of all its files together."""
    max_open_batches: Mapped[int | None]
    """Quota: batches that are not sealed."""
    max_requests_per_minute: Mapped[int | None]
    """Quota: requests to the web with its tokens and sessions."""
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    """Since when the operator keeps the lab out. Its waiting work stays in the queue and is not claimed."""


class LabUse(Base):
    """What a lab keeps. It is apart from the lab, whose row claims lock before batches: this one is locked last."""

    __tablename__ = "lab_use"

    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), primary_key=True, autoincrement=False)
    kept_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sum of ``batch.kept_bytes`` over the lab's batches, deleted ones included until their files are."""


class AccessToken(Base):
    """A secret with which a lab signs in to the API and the pages. Only its hash is stored."""

    __tablename__ = "access_token"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    secret_sha256: Mapped[str] = mapped_column(Sha256, unique=True)
    scopes: Mapped[list[str]]
    """What the token may do: values of ``principals.Scope``, chosen when it was issued."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """When the token ends by itself; unset means never."""
    last_used_at: Mapped[datetime | None]
    """Written at most once a minute."""
    revoked_at: Mapped[datetime | None]

    lab: Mapped[Lab] = relationship(lazy="raise")

    def is_valid(self, now: datetime) -> bool:
        """Return whether the token is neither revoked nor expired; its lab may be disabled all the same."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class BrowserSession(Base):
    """A browser that is signed in. The row is deleted when the session ends, so a copy of its cookie is of no use."""

    __tablename__ = "session"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(Sha256, unique=True)
    """SHA-256 of the secret that the cookie holds."""
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), index=True)
    access_token_id: Mapped[int] = mapped_column(ForeignKey("access_token.id"), index=True)
    """The token that was used to sign in. The session has its scopes, and ends with it."""
    browser: Mapped[str] = mapped_column(String(NAME_LENGTH))
    """What the browser called itself when it signed in."""
    address: Mapped[str] = mapped_column(String(64))
    """The address from which it signed in."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    """Written at most once a minute."""
    ends_at: Mapped[datetime]
    """When the session ends, however much it is used."""

    token: Mapped[AccessToken] = relationship(lazy="raise")


class SignInCode(Base):
    """A one-time code that signs a browser in to a lab."""

    __tablename__ = "sign_in_code"

    code_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"))
    access_token_id: Mapped[int] = mapped_column(ForeignKey("access_token.id"))
    """The session that the code opens ends when this token is revoked."""
    expires_at: Mapped[datetime]


class Bundle(Base):
    """A bundle to which batches or predictions refer, with a copy of its card."""

    __tablename__ = "bundle"
    __table_args__ = (UniqueConstraint("name", "version", "sha256"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    version: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(Sha256)
    card: Mapped[dict[str, Any]]


class Batch(Base):
    """Images submitted together: the job that a lab polls."""

    __tablename__ = "batch"
    __table_args__ = (
        UniqueConstraint("lab_id", "idempotency_key"),
        # One lists a lab's batches newest first, by UUIDv7; the other finds the few that are active.
        Index("ix_batch_lab_id_id", "lab_id", "id"),
        Index(
            "ix_batch_unfinished",
            "bundle_id",
            sqlite_where=text("finished_at IS NULL AND deleted_at IS NULL"),
            postgresql_where=text("finished_at IS NULL AND deleted_at IS NULL"),
        ),
        Index(
            "ix_batch_unfinished_lab_id",
            "lab_id",
            sqlite_where=text("finished_at IS NULL AND deleted_at IS NULL"),
            postgresql_where=text("finished_at IS NULL AND deleted_at IS NULL"),
        ),
        CheckConstraint("received = queued + running + done + failed + cancelled", name="counts_add_up"),
        CheckConstraint(
            "queued >= 0 AND running >= 0 AND done >= 0 AND failed >= 0 AND cancelled >= 0 AND archives_open >= 0",
            name="counts_not_negative",
        ),
        {"postgresql_with": {"fillfactor": 50}},
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """UUIDv7, so that newer batches sort after older ones."""
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"))
    bundle_id: Mapped[int] = mapped_column(ForeignKey("bundle.id"))
    """Fixed when the batch is created."""
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    urgent: Mapped[bool] = mapped_column(default=False)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    """The lab's own notes, which are returned as they are and never interpreted."""
    idempotency_key: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    fingerprint: Mapped[str | None] = mapped_column(Sha256)
    """SHA-256 of the request that created the batch."""

    created_at: Mapped[datetime]
    touched_at: Mapped[datetime]
    """When the lab last added something or retried. The reaper seals an open batch that stays idle."""
    sealed_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    version: Mapped[int] = mapped_column(default=0)
    """Grows with every change that the status shows."""
    received: Mapped[int] = mapped_column(default=0)
    queued: Mapped[int] = mapped_column(default=0)
    running: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    archives_open: Mapped[int] = mapped_column(default=0)
    kept_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of its files: of each image once, however many have the same content, and of archives that wait."""

    measured_at: Mapped[datetime | None]
    """When the rates were last measured."""
    measured_images: Mapped[int] = mapped_column(default=0)
    """Number of images done or failed at that time."""
    rate_recent: Mapped[float | None]
    """Images per second between the last two measurements."""
    rate_smoothed: Mapped[float | None]
    """The same, smoothed over about ten measurements."""

    breached_at: Mapped[datetime | None]
    """Since when the conservation check finds a breach in the batch; unset while it finds none."""

    lab: Mapped[Lab] = relationship(lazy="raise")
    bundle: Mapped[Bundle] = relationship(lazy="raise")

    @property
    def state(self) -> lifecycle.BatchState:
        return lifecycle.find_batch_state(
            cancelled_at=self.cancelled_at,
            sealed_at=self.sealed_at,
            finished_at=self.finished_at,
            has_run=self.running + self.done + self.failed > 0,
        )


class Claim(Base):
    """Images or an archive leased to one worker for a short time."""

    __tablename__ = "claim"

    token: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(NAME_LENGTH))
    bundle_id: Mapped[int | None] = mapped_column(ForeignKey("bundle.id"))
    """Unset for the claim of an archive."""
    expires_at: Mapped[datetime]
    """When the lease runs out, by the database's clock. A renewal updates this row alone."""


class Image(Base):
    """One submitted file and its state."""

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("batch_id", "position"),
        UniqueConstraint("batch_id", "name"),
        # Not the other way round: beginning with the batch, it would be taken for the partial indexes below.
        Index("ix_image_sha256_batch_id", "sha256", "batch_id"),
        Index(
            "ix_image_queued",
            "batch_id",
            "position",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_image_claimed",
            "claim_token",
            sqlite_where=text("claim_token IS NOT NULL"),
            postgresql_where=text("claim_token IS NOT NULL"),
        ),
        # Suspects are rare, and every claim looks for them first.
        Index(
            "ix_image_suspect",
            "batch_id",
            sqlite_where=text("suspect AND state = 'queued'"),
            postgresql_where=text("suspect AND state = 'queued'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batch.id"))
    position: Mapped[int]
    """Order of arrival in the batch, from 1."""
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    """The name that the lab gave the file. It is data, and never used as a path."""
    sha256: Mapped[str] = mapped_column(Sha256)
    bytes: Mapped[int]
    width: Mapped[int | None]
    """In pixels, as the file stores it, before it is turned upright. None until the image is decoded."""
    height: Mapped[int | None]
    state: Mapped[ImageState] = mapped_column(_make_enum(ImageState, "state"), default=ImageState.QUEUED)
    claim_token: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("claim.token"))
    suspect: Mapped[bool] = mapped_column(default=False)
    """Whether the image came back from a lost lease and is claimed alone from then on."""
    solo_losses: Mapped[int] = mapped_column(default=0)
    """Leases lost while claimed alone; the third fails the image."""
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(String(1000))
    notes: Mapped[list[dict[str, str]] | None] = mapped_column(JSON(none_as_null=True))
    """What a lab should know of the file that was read all the same, as ``dermq.notes`` stores it."""


class Archive(Base):
    """A ZIP that a lab uploaded into a batch."""

    __tablename__ = "archive"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batch.id"), index=True)
    state: Mapped[ArchiveState] = mapped_column(_make_enum(ArchiveState, "state"), index=True)
    sha256: Mapped[str | None] = mapped_column(Sha256)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    touched_at: Mapped[datetime]
    """When bytes last arrived or an entry was last unpacked."""
    claim_token: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("claim.token"), index=True)
    losses: Mapped[int] = mapped_column(default=0)
    """Leases lost in a row while no further entry was recorded; the third fails the archive."""
    encoding: Mapped[str | None] = mapped_column(String(32))
    """Encoding of names that are not in Unicode: given by the lab, or found when the archive is opened."""
    next_entry: Mapped[int] = mapped_column(default=0)
    """Index of the entry at which unpacking resumes."""
    entries: Mapped[int] = mapped_column(default=0)
    received: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    """Entries that the batch already had under the same name with the same bytes."""
    refused: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    """Folders, and files that operating systems add to archives."""
    skipped_names: Mapped[list[str]] = mapped_column(default=list)
    """Names of the first hundred skipped entries."""
    error_code: Mapped[str | None] = mapped_column(String(64))
    """Why it failed, or why it waits although its turn has come, such as ``storage_full``."""
    error_detail: Mapped[str | None] = mapped_column(String(1000))


class Refusal(Base):
    """A file that was not accepted, and why."""

    __tablename__ = "refusal"
    __table_args__ = (Index("uq_refusal_batch_id_fingerprint", "batch_id", "fingerprint", unique=True),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batch.id"), index=True)
    archive_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("archive.id"), index=True)
    name: Mapped[str] = mapped_column(String(1000))
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(String(1000))
    fingerprint: Mapped[str | None] = mapped_column(Sha256)
    """SHA-256 of name, code and content of a file that came by itself, so that it is kept once when sent again."""
    created_at: Mapped[datetime]


class Prediction(Base):
    """Seven probabilities and what follows from them, for one image by one bundle."""

    __tablename__ = "prediction"

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True, autoincrement=False)
    bundle_id: Mapped[int] = mapped_column(ForeignKey("bundle.id"), primary_key=True, autoincrement=False)
    p_akiec: Mapped[float]
    p_bcc: Mapped[float]
    p_bkl: Mapped[float]
    p_df: Mapped[float]
    p_mel: Mapped[float]
    p_nv: Mapped[float]
    p_vasc: Mapped[float]
    diagnosis: Mapped[str] = mapped_column(String(8))
    confidence: Mapped[float]
    """The greatest of the seven probabilities."""
    entropy: Mapped[float]
    """Shannon entropy of the seven probabilities in nats: 0 when one of them is 1, ln 7 when all are equal."""
    ood_score: Mapped[float]
    """Out-of-distribution score: the greater it is, the less the image looks like the training data."""
    out_of_distribution: Mapped[bool]
    """Whether the score is above the bundle's threshold."""
    engine: Mapped[str] = mapped_column(String(32))
    worker: Mapped[str] = mapped_column(String(NAME_LENGTH))
    milliseconds: Mapped[float]
    """Duration of the engine's step, divided by the number of its images."""
    predicted_at: Mapped[datetime]


class Truth(Base):
    """The true diagnosis of an image, given by the lab, to evaluate a batch. No code writes or reads it yet."""

    __tablename__ = "truth"

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True, autoincrement=False)
    diagnosis: Mapped[str] = mapped_column(String(8))


class Worker(Base):
    """A worker process. The row of one that was killed stays for an hour."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    queue: Mapped[str] = mapped_column(String(32))
    bundle: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    engine: Mapped[str | None] = mapped_column(String(32))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    progressed_at: Mapped[datetime]


class QueueRow(Base):
    """A table of a single row, which every claim of images locks."""

    __tablename__ = "queue"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    served: Mapped[float] = mapped_column(default=0.0)
    """Greatest start of any turn so far: the virtual time of start-time fair queuing (Goyal et al. 1996)."""


class Event(Base):
    """One event of the audit log: who did what and when. Rows are only added."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    lab_id: Mapped[int | None] = mapped_column(ForeignKey("lab.id"))
    batch_id: Mapped[uuid.UUID | None]
    """Not a foreign key, because the event stays when its batch is deleted."""
    actor: Mapped[str] = mapped_column(String(NAME_LENGTH))
    action: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
