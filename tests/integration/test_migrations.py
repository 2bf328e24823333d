"""The migrations create exactly the tables of ``dermq.models``, on both databases."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext

from dermq import bundles, db, models
from dermq.models import Lab
from dermq.settings import ROOT
from tests import fakes


def test_models_and_migrations_do_not_drift(sessions: db.Sessions) -> None:
    with sessions.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert autogenerate.compare_metadata(context, models.Base.metadata) == []


def test_checks_exist_by_name(sessions: db.Sessions) -> None:
    names = {check["name"] for check in sa.inspect(sessions.engine).get_check_constraints("image")}
    assert "ck_image_state" in names


def test_downgrade_takes_everything_away(sessions: db.Sessions) -> None:
    migrate(sessions, command.downgrade, "base")
    assert set(sa.inspect(sessions.engine).get_table_names()) <= {"alembic_version"}


def test_a_batch_and_its_images_live_through_0002_and_back(
    sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    batch = fakes.create(sessions, lab, bundle)
    fakes.fill(sessions, batch, 3)
    migrate(sessions, command.downgrade, "0001")
    assert "breached_at" not in {column["name"] for column in sa.inspect(sessions.engine).get_columns("batch")}
    migrate(sessions, command.upgrade, "head")
    assert fakes.get(sessions, batch).breached_at is None
    assert len(fakes.images(sessions, batch)) == 3


def migrate(sessions: db.Sessions, move: Callable[[Config, str], None], revision: str) -> None:
    config = Config(ROOT / "alembic.ini")
    with sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
