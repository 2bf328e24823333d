"""names_in_archives: the encoding of names in an archive that are not in Unicode"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("archive", sa.Column("encoding", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("archive", "encoding")
