"""The migrations make exactly the tables of ``dermq.models``, on both databases."""

import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext

from dermq import db, models
from dermq.settings import ROOT


def test_models_and_migrations_do_not_drift(sessions: db.Sessions) -> None:
    with sessions.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert autogenerate.compare_metadata(context, models.Base.metadata) == []


def test_checks_exist_by_name(sessions: db.Sessions) -> None:
    names = {check["name"] for check in sa.inspect(sessions.engine).get_check_constraints("image")}
    assert "ck_image_state" in names


def test_downgrade_takes_everything_away(database_url: str) -> None:
    found = db.Sessions(database_url)
    config = Config(ROOT / "alembic.ini")
    with found.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(sa.inspect(found.engine).get_table_names()) <= {"alembic_version"}
    found.close()
