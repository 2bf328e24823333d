"""The operator's commands of ``flask --app web.app``. Only on SQLite."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from click.testing import Result

from dermq import access_tokens, browser_sessions, bundles, db, models
from dermq.models import Batch, Claim, Lab
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes
from tests.integration.conftest import with_token


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    return migrated_sqlite_url


def run(app: APIFlask, *arguments: str) -> Result:
    found: Result = app.test_cli_runner().invoke(args=arguments)
    return found


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


def test_a_token_gets_scopes_and_an_end(app: APIFlask) -> None:
    run(app, "lab", "add", "clinic")
    chosen = ("--scope", "read", "--scope", "submit", "--expires-days", "30")
    program = with_token(app, run(app, "token", "issue", "clinic", "laptop", *chosen).stdout.strip())
    assert program.post(api.BATCHES, json={"name": "x"}).status_code == 201
    api.assert_problem(program.get("/api/v1/lab/tokens"), 403, "missing_scope")
    listed = run(app, "token", "list", "clinic").output
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    assert f"\tread,submit\tvalid until {until}" in listed


def test_a_lab_is_disabled_and_enabled(app: APIFlask) -> None:
    run(app, "lab", "add", "clinic")
    program = with_token(app, run(app, "token", "issue", "clinic", "laptop").stdout.strip())
    assert run(app, "lab", "disable", "clinic").exit_code == 0
    assert "\tdisabled " in run(app, "lab", "list").output
    api.assert_problem(program.get(api.BATCHES), 403, "lab_disabled")
    assert run(app, "lab", "enable", "clinic").exit_code == 0
    assert run(app, "lab", "list").output.endswith("\tenabled\n")
    assert program.get(api.BATCHES).status_code == 200


def test_quotas_are_shown_and_changed(app: APIFlask) -> None:
    run(app, "lab", "add", "clinic", "--max-open-batches", "5")
    shown = run(app, "lab", "show", "clinic").output.splitlines()
    assert shown == [
        "weight\t1",
        "waiting_images\t0\t100000\tdefault",
        "kept_bytes\t0\t200000000000\tdefault",
        "open_batches\t0\t5\town",
        "requests_per_minute\t-\t200000\tdefault",
    ]
    changed = run(
        app, "lab", "set", "clinic", "--weight", "3", "--max-kept-bytes", "7", "--max-open-batches", "default"
    )
    assert changed.exit_code == 0
    lines = run(app, "lab", "show", "clinic").output.splitlines()
    assert lines[0] == "weight\t3" and lines[2] == "kept_bytes\t0\t7\town"
    assert lines[3] == "open_batches\t0\t200\tdefault"
    for wrong in ("0", "-1", "many", str(2**63), "1.5"):
        refused = run(app, "lab", "set", "clinic", "--max-kept-bytes", wrong)
        assert refused.exit_code == 2 and "greater than 0" in refused.output


def test_an_audit_finds_a_wrong_sum_of_a_lab(app: APIFlask, sessions: db.Sessions, batch: Batch) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(models.LabUse).values(kept_bytes=1)) and None)
    result = run(app, "audit")
    assert result.exit_code == 1 and "no batch\tcounts_differ\t" in result.stdout and "kept_bytes" in result.stdout


def test_the_operator_lists_and_ends_sessions(app: APIFlask, sessions: db.Sessions, settings: Settings) -> None:
    run(app, "lab", "add", "clinic")
    secret = run(app, "token", "issue", "clinic", "laptop").stdout.strip()
    token = db.read(sessions, access_tokens.authenticate, secret)
    for agent in ("Firefox/1\x1b[2J", "Chrome/2", "Edg/3"):
        visitor = browser_sessions.Visitor(agent, "192.0.2.7")
        db.transact(sessions, browser_sessions.begin, token, visitor, settings)
    lines = run(app, "session", "list", "clinic").output.splitlines()
    assert len(lines) == 3 and all("laptop" in line and "192.0.2.7" in line for line in lines)
    assert "\x1b" not in "".join(lines)
    assert run(app, "session", "end", lines[0].split("\t")[0]).exit_code == 0
    assert len(run(app, "session", "list", "clinic").output.splitlines()) == 2
    assert "Ended 2 sessions" in run(app, "session", "end-all", "clinic").output
    assert run(app, "session", "list", "clinic").output == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lab", "disable", "nobody"), "There is no lab"),
        (("lab", "enable", "nobody"), "There is no lab"),
        (("session", "list", "nobody"), "There is no lab"),
        (("session", "end", "99"), "There is no session 99."),
        (("session", "end-all", "nobody"), "There is no lab"),
        (("lab", "add", "clinic"), "exists already"),
        (("lab", "add", "other", "--weight", "0"), "must be greater than 0"),
        (("token", "issue", "nobody", "x"), "There is no lab called 'nobody'. Known: 'clinic'."),
        (("token", "list", "nobody"), "There is no lab"),
        (("token", "revoke", "99"), "There is no token 99."),
    ],
)
def test_a_mistake_is_reported_in_a_sentence(app: APIFlask, arguments: tuple[str, ...], text: str) -> None:
    run(app, "lab", "add", "clinic")
    result = run(app, *arguments)
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert text in result.output


def test_a_database_without_tables_is_reported(app: APIFlask) -> None:
    with app.extensions["dermq"].sessions.engine.begin() as connection:
        models.Base.metadata.drop_all(connection)
    result = run(app, "lab", "list")
    assert result.exit_code == 1
    assert "alembic upgrade head" in result.output


@pytest.fixture
def batch(sessions: db.Sessions, blobs: LocalStore, settings: Settings, lab: Lab, bundle: bundles.Bundle) -> Batch:
    """A batch of three images."""
    found = fakes.create(sessions, lab, bundle)
    fakes.add(sessions, blobs, settings, found, fakes.pictures(3))
    return found


def test_an_audit_counts_what_it_saw(app: APIFlask, batch: Batch) -> None:
    result = run(app, "audit")
    assert (result.exit_code, result.stdout) == (0, "1 batches, 3 images: all conserved.\n")


def test_an_audit_tells_each_finding_and_fails(
    app: APIFlask, sessions: db.Sessions, blobs: LocalStore, batch: Batch
) -> None:
    blobs.delete(batch.id, fakes.images(sessions, batch)[1].sha256)
    result = run(app, "audit")
    finding, totals = result.stdout.splitlines()
    assert result.exit_code == 1 and totals == "1 batches, 3 images: 1 findings in 1 batches."
    assert finding.startswith(f"{batch.id}\tfile_missing\t") and finding.endswith("this does not hold for: image 2.")


def test_an_audit_tells_of_a_claim_that_belongs_to_no_batch(app: APIFlask, sessions: db.Sessions) -> None:
    old = sa.insert(Claim).values(token=uuid.uuid4(), worker="w", expires_at=db.now(-86_400))
    db.transact(sessions, lambda session: session.execute(old))
    result = run(app, "audit")
    assert result.exit_code == 1 and result.stdout.startswith("no batch\tclaim_stale\t")


def test_an_audit_for_programs_is_one_json_object(
    app: APIFlask, sessions: db.Sessions, blobs: LocalStore, batch: Batch
) -> None:
    blobs.delete(batch.id, fakes.images(sessions, batch)[0].sha256)
    result = run(app, "audit", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and (told["batches"], told["images"]) == (1, 3)
    assert [(one["batch"], one["breach"]) for one in told["findings"]] == [(str(batch.id), "file_missing")]


def test_one_batch_is_audited_alone(
    app: APIFlask, sessions: db.Sessions, blobs: LocalStore, batch: Batch, lab: Lab, bundle: bundles.Bundle
) -> None:
    other = fakes.create(sessions, lab, bundle)
    blobs.delete(batch.id, fakes.images(sessions, batch)[0].sha256)
    assert run(app, "audit", "--batch", str(other.id)).exit_code == 0
    assert run(app, "audit", "--batch", str(batch.id)).exit_code == 1
    unknown = run(app, "audit", "--batch", str(uuid.uuid4()))
    assert unknown.exit_code == 1 and "There is no batch" in unknown.output


def test_an_audit_without_the_store_is_reported(app: APIFlask, blobs: LocalStore, batch: Batch) -> None:
    blobs.root.rename(blobs.root.with_name("not mounted"))
    result = run(app, "audit")
    assert result.exit_code == 1 and "is not the one used before" in result.output
    assert "Traceback" not in result.output
