"""quotas: limits of a lab, and the bytes that batches and labs keep"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UNFINISHED = sa.text("finished_at IS NULL AND deleted_at IS NULL")
_KEPT = """
UPDATE batch SET kept_bytes =
  coalesce((SELECT sum(bytes) FROM (SELECT DISTINCT sha256, bytes FROM image WHERE batch_id = batch.id) AS files), 0)
  + coalesce((SELECT sum(bytes) FROM archive
              WHERE batch_id = batch.id AND state IN ('stored', 'unpacking')), 0)
"""
_USE = """
INSERT INTO lab_use (lab_id, kept_bytes)
SELECT id, coalesce((SELECT sum(kept_bytes) FROM batch WHERE lab_id = lab.id), 0) FROM lab
"""


def upgrade() -> None:
    op.add_column("lab", sa.Column("max_kept_bytes", sa.BigInteger(), nullable=True))
    op.add_column("lab", sa.Column("max_open_batches", sa.Integer(), nullable=True))
    op.add_column("lab", sa.Column("max_requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("batch", sa.Column("kept_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "lab_use",
        sa.Column("lab_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("kept_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_lab_use_lab_id_lab")),
        sa.PrimaryKeyConstraint("lab_id", name=op.f("pk_lab_use")),
    )
    op.create_index("ix_image_sha256_batch_id", "image", ["sha256", "batch_id"])
    op.create_index(
        "ix_batch_unfinished_lab_id", "batch", ["lab_id"], sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED
    )
    op.execute(_KEPT)
    op.execute(_USE)


def downgrade() -> None:
    op.drop_index("ix_batch_unfinished_lab_id", "batch")
    op.drop_index("ix_image_sha256_batch_id", "image")
    op.drop_table("lab_use")
    op.drop_column("batch", "kept_bytes")
    for name in ("max_requests_per_minute", "max_open_batches", "max_kept_bytes"):
        op.drop_column("lab", name)
