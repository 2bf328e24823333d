"""archives: refusals of different files stay apart; the bytes that an archive unpacked to are no longer counted"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("refusal", sa.Column("fingerprint", sa.String(64), nullable=True))
    op.create_index("uq_refusal_batch_id_fingerprint", "refusal", ["batch_id", "fingerprint"], unique=True)
    op.drop_column("archive", "unpacked_bytes")


def downgrade() -> None:
    op.add_column("archive", sa.Column("unpacked_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.drop_index("uq_refusal_batch_id_fingerprint", "refusal")
    op.drop_column("refusal", "fingerprint")
