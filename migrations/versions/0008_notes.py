"""notes: what a lab should know of an image that was read all the same"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image", sa.Column("notes", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("image", "notes")
