"""The migrations create exactly the tables of ``dermq.models``, on both databases."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from dermq import bundles, db, models
from dermq.models import Lab
from dermq.settings import ROOT
from tests import fakes, servers
from tests.conftest import missing


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


def test_a_migration_waits_for_postgresql_to_start() -> None:
    binaries = servers.postgresql_binaries()
    if binaries is None:
        missing("PostgreSQL (initdb and pg_ctl)")
    with servers.Postgresql(binaries) as server:
        server.stop()
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        environment = os.environ | {"DERMQ_DATABASE_URL": server.url}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as migration:
            assert migration.stderr is not None
            told = migration.stderr.readline()
            server.start()
            told += migration.stderr.read()
        assert "waiting for the database" in told and migration.returncode == 0, told


def test_waiting_for_a_postgresql_that_never_comes_ends_with_the_reason() -> None:
    sessions = db.Sessions(f"postgresql://dermq@127.0.0.1:{servers.free_port()}/postgres")
    with pytest.raises(OperationalError, match="refused"):
        db.wait_until_reachable(sessions, seconds=0)


def migrate(sessions: db.Sessions, move: Callable[[Config, str], None], revision: str) -> None:
    config = Config(ROOT / "alembic.ini")
    with sessions.engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
