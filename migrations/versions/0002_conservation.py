"""Add ``batch.breached_at``, since when the conservation check finds a breach in a batch."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("breached_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # Not in batch mode, in which SQLite would have to drop and recreate a table that images refer to.
    op.drop_column("batch", "breached_at")
