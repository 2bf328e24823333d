"""Alembic's entry: runs the migrations on the database of the settings, or on a connection that is handed in.

One process migrates at a time; the others wait for it and then find nothing to do.
"""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from dermq import models
from dermq.db import Sessions, UtcDateTime
from dermq.settings import Settings

_LOCK = 0x6465726D71  # "dermq"


def _render(kind: str, thing: Any, context: Any) -> str | Literal[False]:
    """Write our time type into a migration as what it is to the database."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(thing, UtcDateTime) else False


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=models.Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=_render,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # The limits of everyday transactions are not for migrations, nor for those that wait for them.
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    _run(handed_in)
else:
    with Sessions(Settings().database).engine.begin() as connection:
        _run(connection)
