"""Run the migrations, on the database of the settings or on a connection that the caller gives. Alembic calls this.

Only one process migrates at a time. Others wait for it and then find nothing to do.
"""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from dermq import db, models
from dermq.db import UtcDateTime
from dermq.settings import Settings

_LOCK = 0x6465726D71  # "dermq"


def _render(kind: str, thing: Any, context: Any) -> str | Literal[False]:
    """Let generated migrations write our time type as the column type that it is in the database."""
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
            # Migrations, and processes that wait for one, may exceed the time limits of other transactions.
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    sessions = db.Sessions(Settings().database)
    db.wait_until_reachable(sessions)
    with sessions.engine.begin() as connection:
        _run(connection)
