"""What an operator does with ``flask --app web.app``. On SQLite alone."""

import pytest
from apiflask import APIFlask
from click.testing import Result

from dermq import models
from tests import api
from tests.integration.conftest import with_token


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


def run(app: APIFlask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=arguments)


def test_a_lab_is_added_and_gets_a_token_that_works(app: APIFlask) -> None:
    added = run(app, "lab", "add", "clinic", "--weight", "2")
    assert added.exit_code == 0 and "clinic" in added.output
    assert run(app, "lab", "list").output.startswith("clinic\t2\t")
    issued = run(app, "token", "issue", "clinic", "laptop")
    secret = issued.stdout.strip()
    assert secret.startswith("dermq_") and len(secret.split()) == 1
    assert with_token(app, secret).get(api.BATCHES).status_code == 200


def test_a_revoked_token_is_shown_so(app: APIFlask) -> None:
    run(app, "lab", "add", "clinic")
    secret = run(app, "token", "issue", "clinic", "laptop").stdout.strip()
    before = run(app, "token", "list", "clinic").output
    assert "laptop" in before and "never used" in before and "valid" in before
    assert secret not in before
    token_id = before.split("\t")[0]
    assert run(app, "token", "revoke", token_id).exit_code == 0
    assert "revoked" in run(app, "token", "list", "clinic").output
    api.assert_problem(with_token(app, secret).get(api.BATCHES), 401, "bad_token")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lab", "add", "clinic"), "exists already"),
        (("lab", "add", "other", "--weight", "0"), "must be greater than 0"),
        (("token", "issue", "nobody", "x"), "There is no lab called 'nobody'. Known: 'clinic'."),
        (("token", "list", "nobody"), "There is no lab"),
        (("token", "revoke", "99"), "There is no token 99."),
    ],
)
def test_a_mistake_is_said_in_a_sentence(app: APIFlask, arguments: tuple[str, ...], text: str) -> None:
    run(app, "lab", "add", "clinic")
    result = run(app, *arguments)
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert text in result.output


def test_a_database_without_tables_is_said(app: APIFlask) -> None:
    with app.extensions["dermq"].sessions.engine.begin() as connection:
        models.Base.metadata.drop_all(connection)
    result = run(app, "lab", "list")
    assert result.exit_code == 1
    assert "alembic upgrade head" in result.output
