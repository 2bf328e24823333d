"""sessions: rows for signed-in browsers; scopes and expiry of access tokens; labs that are disabled"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ALL_SCOPES = '["read", "submit", "manage"]'
"""Tokens from before this migration could do everything, and still can."""


def upgrade() -> None:
    op.add_column("lab", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("access_token", sa.Column("scopes", sa.JSON(), nullable=False, server_default=_ALL_SCOPES))
    op.add_column("access_token", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "session",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("lab_id", _BIG_ID, nullable=False),
        sa.Column("access_token_id", _BIG_ID, nullable=False),
        sa.Column("browser", sa.String(length=255), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_session_lab_id_lab")),
        sa.ForeignKeyConstraint(
            ["access_token_id"], ["access_token.id"], name=op.f("fk_session_access_token_id_access_token")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_session_secret_sha256")),
    )
    op.create_index(op.f("ix_session_lab_id"), "session", ["lab_id"])
    op.create_index(op.f("ix_session_access_token_id"), "session", ["access_token_id"])


def downgrade() -> None:
    op.drop_table("session")
    op.drop_column("access_token", "expires_at")
    op.drop_column("access_token", "scopes")
    op.drop_column("lab", "disabled_at")
