"""size_when_decoded: the width and height of an image may be unknown, until it is decoded"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("width", "height"):
        if op.get_bind().dialect.name == "sqlite":
            _replace_column(name, nullable=True)
        else:
            op.alter_column("image", name, nullable=True)


def downgrade() -> None:
    for name in ("width", "height"):
        if op.get_bind().dialect.name == "sqlite":
            _replace_column(name, nullable=False)
        else:
            op.execute(f"UPDATE image SET {name} = 0 WHERE {name} IS NULL")
            op.alter_column("image", name, nullable=False)


def _replace_column(name: str, *, nullable: bool) -> None:
    """Change whether a column may be NULL on SQLite, which can only add, drop and rename columns.

    Alembic's batch mode would drop the whole table, which predictions refer to.
    """
    default = None if nullable else "0"
    op.add_column("image", sa.Column("replaced", sa.Integer(), nullable=nullable, server_default=default))
    op.execute(f"UPDATE image SET replaced = coalesce({name}, replaced)")
    op.drop_column("image", name)
    op.execute(f"ALTER TABLE image RENAME COLUMN replaced TO {name}")
