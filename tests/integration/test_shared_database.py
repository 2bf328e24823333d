"""The PostgreSQL database that tests share is empty for each of them, or another one."""

import pytest
import sqlalchemy as sa

from dermq import db, labs
from tests import servers

_MANY_LABS = """
INSERT INTO lab SELECT (jsonb_populate_record(lab, jsonb_build_object('id', number, 'name', 'lab ' || number))).*
FROM lab, generate_series(2, 40000) AS number
"""


@pytest.fixture
def shared(postgresql_template: sa.URL) -> servers.SharedDatabase:
    return servers.SharedDatabase(postgresql_template)


def add_lab(url: str) -> int:
    sessions = db.Sessions(url)
    added = db.transact(sessions, labs.add, "lab")
    sessions.close()
    return added.id


def run(url: str, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_the_next_test_gets_the_same_database_without_the_rows(shared: servers.SharedDatabase) -> None:
    with shared:
        with shared.use() as first:
            number = add_lab(first)
            run(first, "UPDATE queue SET served = 7")
        with shared.use() as second:
            assert second == first
            assert add_lab(second) == number, "the numbers begin anew"
            run(second, "DO $$ BEGIN ASSERT (SELECT served FROM queue) = 0; END $$")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE lab ADD COLUMN color text",
        "CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "DROP INDEX ix_image_queued",
        "CREATE TABLE large AS SELECT generate_series(1, 200000) AS number",
        "ALTER TABLE prediction DROP CONSTRAINT fk_prediction_image_id_image",
    ],
)
def test_after_a_change_of_the_schema_the_next_test_gets_another_database(
    shared: servers.SharedDatabase, change: str
) -> None:
    with shared:
        with shared.use() as first:
            run(first, change)
        with shared.use() as second:
            assert second != first


def test_a_database_that_has_grown_is_replaced(shared: servers.SharedDatabase) -> None:
    with shared:
        with shared.use() as first:
            add_lab(first)
            run(first, _MANY_LABS)
        with shared.use() as second:
            assert second != first


def test_a_transaction_left_open_blocks_nothing(shared: servers.SharedDatabase) -> None:
    with shared:
        with shared.use() as first:
            left = sa.create_engine(first).connect()
            left.exec_driver_sql("SELECT * FROM lab FOR UPDATE")
            left.exec_driver_sql("LOCK TABLE lab")
        with shared.use() as second:
            assert second == first
        left.invalidate()
        left.close()
