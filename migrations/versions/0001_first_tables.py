"""Create the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bundle",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bundle")),
        sa.UniqueConstraint("name", "version", "sha256", name=op.f("uq_bundle_name_version_sha256")),
    )
    op.create_table(
        "lab",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("tag", sa.Double(), nullable=False),
        sa.Column("urgent_turns", sa.Integer(), nullable=False),
        sa.Column("max_waiting_images", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("weight > 0", name=op.f("ck_lab_weight_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab")),
        sa.UniqueConstraint("name", name=op.f("uq_lab_name")),
    )
    op.create_table(
        "queue",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("served", sa.Double(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_queue_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue")),
    )
    op.execute("INSERT INTO queue (id, served) VALUES (1, 0)")
    op.create_table(
        "worker",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("bundle", sa.String(length=255), nullable=True),
        sa.Column("engine", sa.String(length=32), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )
    op.create_table(
        "access_token",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("lab_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_access_token_lab_id_lab")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_token")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_access_token_secret_sha256")),
    )
    with op.batch_alter_table("access_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_access_token_lab_id"), ["lab_id"], unique=False)

    op.create_table(
        "batch",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lab_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("bundle_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("archives_open", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("measured_images", sa.Integer(), nullable=False),
        sa.Column("rate_recent", sa.Double(), nullable=True),
        sa.Column("rate_smoothed", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "queued >= 0 AND running >= 0 AND done >= 0 AND failed >= 0 AND cancelled >= 0 AND archives_open >= 0",
            name=op.f("ck_batch_counts_not_negative"),
        ),
        sa.CheckConstraint(
            "received = queued + running + done + failed + cancelled", name=op.f("ck_batch_counts_add_up")
        ),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundle.id"], name=op.f("fk_batch_bundle_id_bundle")),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_batch_lab_id_lab")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("lab_id", "idempotency_key", name=op.f("uq_batch_lab_id_idempotency_key")),
        postgresql_with={"fillfactor": 50},
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index("ix_batch_lab_id_id", ["lab_id", "id"], unique=False)
        batch_op.create_index(
            "ix_batch_unfinished",
            ["bundle_id"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NULL AND deleted_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL AND deleted_at IS NULL"),
        )

    op.create_table(
        "claim",
        sa.Column("token", sa.Uuid(), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("bundle_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundle.id"], name=op.f("fk_claim_bundle_id_bundle")),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_claim")),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lab_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_event_lab_id_lab")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_table(
        "archive",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "receiving",
                "stored",
                "unpacking",
                "done",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("next_entry", sa.Integer(), nullable=False),
        sa.Column("unpacked_bytes", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("skipped_names", sa.JSON(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=1000), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_archive_batch_id_batch")),
        sa.ForeignKeyConstraint(["claim_token"], ["claim.token"], name=op.f("fk_archive_claim_token_claim")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
    )
    with op.batch_alter_table("archive", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_archive_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_archive_claim_token"), ["claim_token"], unique=False)
        batch_op.create_index(batch_op.f("ix_archive_state"), ["state"], unique=False)

    op.create_table(
        "image",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "done",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("suspect", sa.Boolean(), nullable=False),
        sa.Column("solo_losses", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=1000), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_image_batch_id_batch")),
        sa.ForeignKeyConstraint(["claim_token"], ["claim.token"], name=op.f("fk_image_claim_token_claim")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("batch_id", "name", name=op.f("uq_image_batch_id_name")),
        sa.UniqueConstraint("batch_id", "position", name=op.f("uq_image_batch_id_position")),
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index(
            "ix_image_claimed",
            ["claim_token"],
            unique=False,
            sqlite_where=sa.text("claim_token IS NOT NULL"),
            postgresql_where=sa.text("claim_token IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_image_queued",
            ["batch_id", "position"],
            unique=False,
            sqlite_where=sa.text("state = 'queued'"),
            postgresql_where=sa.text("state = 'queued'"),
        )
        batch_op.create_index(
            "ix_image_suspect",
            ["batch_id"],
            unique=False,
            sqlite_where=sa.text("suspect AND state = 'queued'"),
            postgresql_where=sa.text("suspect AND state = 'queued'"),
        )

    op.create_table(
        "sign_in_code",
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("lab_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("access_token_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["access_token_id"], ["access_token.id"], name=op.f("fk_sign_in_code_access_token_id_access_token")
        ),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_sign_in_code_lab_id_lab")),
        sa.PrimaryKeyConstraint("code_sha256", name=op.f("pk_sign_in_code")),
    )
    op.create_table(
        "prediction",
        sa.Column(
            "image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column(
            "bundle_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("p_akiec", sa.Double(), nullable=False),
        sa.Column("p_bcc", sa.Double(), nullable=False),
        sa.Column("p_bkl", sa.Double(), nullable=False),
        sa.Column("p_df", sa.Double(), nullable=False),
        sa.Column("p_mel", sa.Double(), nullable=False),
        sa.Column("p_nv", sa.Double(), nullable=False),
        sa.Column("p_vasc", sa.Double(), nullable=False),
        sa.Column("diagnosis", sa.String(length=8), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("entropy", sa.Double(), nullable=False),
        sa.Column("ood_score", sa.Double(), nullable=False),
        sa.Column("out_of_distribution", sa.Boolean(), nullable=False),
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("milliseconds", sa.Double(), nullable=False),
        sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundle.id"], name=op.f("fk_prediction_bundle_id_bundle")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_prediction_image_id_image")),
        sa.PrimaryKeyConstraint("image_id", "bundle_id", name=op.f("pk_prediction")),
    )
    op.create_table(
        "refusal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("archive_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=1000), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=1000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["archive_id"], ["archive.id"], name=op.f("fk_refusal_archive_id_archive")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_refusal_batch_id_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusal")),
    )
    with op.batch_alter_table("refusal", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_refusal_archive_id"), ["archive_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_refusal_batch_id"), ["batch_id"], unique=False)

    op.create_table(
        "truth",
        sa.Column(
            "image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("diagnosis", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_truth_image_id_image")),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_truth")),
    )


def downgrade() -> None:
    op.drop_table("truth")
    with op.batch_alter_table("refusal", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_refusal_batch_id"))
        batch_op.drop_index(batch_op.f("ix_refusal_archive_id"))

    op.drop_table("refusal")
    op.drop_table("prediction")
    op.drop_table("sign_in_code")
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_image_suspect",
            sqlite_where=sa.text("suspect AND state = 'queued'"),
            postgresql_where=sa.text("suspect AND state = 'queued'"),
        )
        batch_op.drop_index(
            "ix_image_queued", sqlite_where=sa.text("state = 'queued'"), postgresql_where=sa.text("state = 'queued'")
        )
        batch_op.drop_index(
            "ix_image_claimed",
            sqlite_where=sa.text("claim_token IS NOT NULL"),
            postgresql_where=sa.text("claim_token IS NOT NULL"),
        )

    op.drop_table("image")
    with op.batch_alter_table("archive", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_archive_state"))
        batch_op.drop_index(batch_op.f("ix_archive_claim_token"))
        batch_op.drop_index(batch_op.f("ix_archive_batch_id"))

    op.drop_table("archive")
    op.drop_table("event")
    op.drop_table("claim")
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_batch_unfinished",
            sqlite_where=sa.text("finished_at IS NULL AND deleted_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL AND deleted_at IS NULL"),
        )
        batch_op.drop_index("ix_batch_lab_id_id")

    op.drop_table("batch")
    with op.batch_alter_table("access_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_access_token_lab_id"))

    op.drop_table("access_token")
    op.drop_table("worker")
    op.drop_table("queue")
    op.drop_table("lab")
    op.drop_table("bundle")
