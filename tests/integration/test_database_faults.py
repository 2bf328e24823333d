"""An unreachable, busy or failing database: bounded retries, no work done twice, and correct responses."""

import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from dermq import access_tokens, archives, arrivals, batches, bundles, db, errors, labs
from dermq.lifecycle import ImageState
from dermq.models import Batch, Claim, Lab, Prediction
from dermq.principals import OPERATOR
from dermq.queue import claims, leases
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes, samples, scenarios, servers
from tests.integration.conftest import with_token
from tests.wire import Cut, Wire
from web import services
from web.app import create_app

both_cuts = pytest.mark.parametrize("cut", ["before", "after"])


@pytest.fixture
def postgresql_url(postgresql_template: sa.URL) -> Iterator[str]:
    with servers.postgresql_copy(postgresql_template) as url:
        yield url


@pytest.fixture
def wire(postgresql_url: str) -> Iterator[Wire]:
    url = sa.make_url(postgresql_url)
    assert url.host is not None and url.port is not None
    with Wire(url.host, url.port) as made:
        yield made


@pytest.fixture
def over_wire(postgresql_url: str, wire: Wire) -> Iterator[db.Sessions]:
    """Sessions on PostgreSQL whose connections can be cut."""
    found = db.Sessions(sa.make_url(postgresql_url).set(host="127.0.0.1", port=wire.port).render_as_string())
    yield found
    found.close()


@pytest.fixture
def filed(over_wire: db.Sessions, bundle: bundles.Bundle) -> Batch:
    return scenarios.submit(over_wire, bundle, "lab", 3)[1]


@contextmanager
def application(settings: Settings, url: str) -> Iterator[APIFlask]:
    app = create_app(settings.model_copy(update={"database_url": url}), wakeups=fakes.Wakeups())
    yield app
    app.extensions[services.EXTENSION].sessions.close()


def count(sessions: db.Sessions, table: type[Any]) -> int:
    wanted = sa.select(sa.func.count()).select_from(table)
    return db.read(sessions, lambda session: session.scalar(wanted)) or 0


# A connection that breaks at COMMIT: the client cannot know whether the transaction was committed.


@both_cuts
def test_an_upload_is_accepted_once(
    over_wire: db.Sessions, wire: Wire, filed: Batch, blobs: LocalStore, settings: Settings, cut: Cut
) -> None:
    with arrivals.receive_file(blobs, "a.jpg", [samples.jpeg()], settings) as arrival:
        arrivals.keep(over_wire, blobs, filed.id, [arrival], settings)
        wire.cut_commit(cut)
        [verdict] = db.transact(over_wire, arrivals.receive, filed.id, [arrival], settings)
    assert wire.cuts == 1
    assert verdict.error is None and verdict.position == 4 and verdict.unchanged == (cut == "after")
    assert fakes.get(over_wire, filed).received == 4 and len(blobs.list(filed.id)) == 1


@both_cuts
def test_a_batch_is_created_once(over_wire: db.Sessions, wire: Wire, bundle: bundles.Bundle, cut: Cut) -> None:
    lab = db.transact(over_wire, labs.add, "lab")
    wire.cut_commit(cut)
    created, is_new = db.transact(over_wire, batches.create, lab.id, batches.Draft("batch"), bundle, by=OPERATOR)
    assert wire.cuts == 1 and is_new == (cut == "before")
    assert count(over_wire, Batch) == 1 and fakes.get(over_wire, created).name == "batch"


@both_cuts
def test_an_archive_is_stored_once(
    over_wire: db.Sessions, wire: Wire, filed: Batch, blobs: LocalStore, cut: Cut
) -> None:
    archive_id = batches.make_id()
    db.transact(over_wire, archives.begin, filed.id, archive_id)
    with blobs.receive() as file:
        file.write(samples.archive({"a.jpg": samples.jpeg()}))
        file.finish()
        archives.keep(over_wire, blobs, archive_id, file)
        wire.cut_commit(cut)
        archive, is_new = db.transact(over_wire, archives.store, archive_id, file)
    assert wire.cuts == 1 and is_new and archive.id == archive_id
    assert fakes.get(over_wire, filed).archives_open == 1


@both_cuts
def test_outcomes_are_recorded_once(
    over_wire: db.Sessions, wire: Wire, filed: Batch, bundle: bundles.Bundle, cut: Cut
) -> None:
    """The second attempt finds no claim and raises LeaseLost, so the worker forgets the claim and goes on."""
    who = scenarios.claimant(over_wire, bundle)
    lease = db.transact(over_wire, claims.take, who, 8)
    assert lease is not None
    wire.cut_commit(cut)
    try:
        db.transact(over_wire, claims.record, lease.token, scenarios.predictions(lease.images, who))
    except leases.LeaseLost:
        assert cut == "after"
    assert wire.cuts == 1
    assert fakes.get(over_wire, filed).done == 3 and count(over_wire, Prediction) == 3 and count(over_wire, Claim) == 0


@both_cuts
def test_a_step_of_a_claim_is_recorded_once_and_the_rest_goes_on(
    over_wire: db.Sessions, wire: Wire, filed: Batch, bundle: bundles.Bundle, cut: Cut
) -> None:
    who = scenarios.claimant(over_wire, bundle)
    lease = db.transact(over_wire, claims.take, who, 8)
    assert lease is not None
    found = scenarios.predictions(lease.images, who)
    wire.cut_commit(cut)
    db.transact(over_wire, claims.record, lease.token, found[:1])
    db.transact(over_wire, claims.record, lease.token, found[1:])
    assert wire.cuts == 1
    assert fakes.get(over_wire, filed).done == 3 and count(over_wire, Prediction) == 3


@both_cuts
def test_a_claim_that_nobody_heard_of_loses_no_image_and_fails_none(
    over_wire: db.Sessions, wire: Wire, filed: Batch, bundle: bundles.Bundle, cut: Cut
) -> None:
    """The worker does not know that its claim was committed. The lease expires, and each image is tried alone once."""
    who = scenarios.claimant(over_wire, bundle)
    db.transact(over_wire, batches.seal, filed.id, by=OPERATOR)
    wire.cut_commit(cut)
    lease = db.transact(over_wire, claims.take, who, 8)
    assert wire.cuts == 1 and (lease is None) == (cut == "after")
    for token in db.read(over_wire, lambda session: session.scalars(sa.select(Claim.token)).all()):
        scenarios.lose(over_wire, token)
        assert db.transact(over_wire, claims.expire, token)
    assert {image.solo_losses for image in fakes.images(over_wire, filed)} == {0}
    scenarios.finish(over_wire, who)
    assert {image.state for image in fakes.images(over_wire, filed)} == {ImageState.DONE}


@both_cuts
def test_a_suspect_that_nobody_heard_of_loses_one_try_at_most(
    over_wire: db.Sessions, wire: Wire, filed: Batch, bundle: bundles.Bundle, cut: Cut
) -> None:
    who = scenarios.claimant(over_wire, bundle)
    lease = db.transact(over_wire, claims.take, who, 64)
    assert lease is not None
    scenarios.lose(over_wire, lease.token)
    assert db.transact(over_wire, claims.expire, lease.token)
    wire.cut_commit(cut)
    again = db.transact(over_wire, claims.take_suspect, who)
    assert wire.cuts == 1 and again is not None and again.alone
    db.transact(over_wire, claims.record, again.token, scenarios.predictions(again.images, who))
    for token in db.read(over_wire, lambda session: session.scalars(sa.select(Claim.token)).all()):
        assert cut == "after"
        scenarios.lose(over_wire, token)
        assert db.transact(over_wire, claims.expire, token)
    assert sorted(image.solo_losses for image in fakes.images(over_wire, filed)) == [0, 0, int(cut == "after")]
    scenarios.finish(over_wire, who)
    assert {image.state for image in fakes.images(over_wire, filed)} == {ImageState.DONE}


@both_cuts
def test_a_seal_and_a_cancel_are_answered_well(over_wire: db.Sessions, wire: Wire, filed: Batch, cut: Cut) -> None:
    acts: tuple[Callable[[Session, uuid.UUID], Any], ...] = (
        partial(batches.seal, by=OPERATOR),
        partial(batches.cancel, by=OPERATOR),
        batches.sweep,
    )
    for done, act in enumerate(acts, start=1):
        wire.cut_commit(cut)
        db.transact(over_wire, act, filed.id)
        assert wire.cuts == done
    found = fakes.get(over_wire, filed)
    assert (found.cancelled, found.queued) == (3, 0) and found.finished_at is not None


# A server that cuts all connections, or is unreachable.


def test_connections_that_the_server_closes_are_opened_again(
    over_wire: db.Sessions, postgresql_url: str, filed: Batch
) -> None:
    others = db.Sessions(postgresql_url)
    cut = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid")
    runs = 0

    def add_a_lab(session: Session) -> None:
        nonlocal runs
        runs += 1
        pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
        if runs < 3:
            db.transact(others, lambda other: other.execute(cut, {"pid": pid}))
        with session.begin_nested():
            labs.add(session, "late")

    db.transact(over_wire, add_a_lab)
    others.close()
    assert runs == 3
    assert db.read(over_wire, lambda session: labs.find(session, "late")) is not None


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "25006"])
def test_a_transaction_that_another_got_in_the_way_of_is_run_again_but_not_for_ever(
    over_wire: db.Sessions, state: str
) -> None:
    """Serialization failure, deadlock, lock timeout, and a server that has not been promoted yet."""
    runs = 0
    fail = sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")

    def work(session: Session, failures: int) -> int:
        nonlocal runs
        runs += 1
        if runs <= failures:
            session.execute(fail)
        return runs

    assert db.transact(over_wire, work, failures=db.RERUNS) == db.RERUNS + 1
    runs = 0
    with pytest.raises(errors.Unavailable):
        db.transact(over_wire, work, failures=db.RERUNS + 1)


def test_what_takes_too_long_is_not_run_again(over_wire: db.Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_RERUN_SECONDS", 0.1)
    runs = 0

    def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        session.execute(sa.text("SET LOCAL statement_timeout = '0.2s'"))
        session.execute(sa.text("SELECT pg_sleep(5)"))

    with pytest.raises(errors.Unavailable):
        db.transact(over_wire, work)
    assert runs == 1


ADDRESSES = [
    ("GET", "/batches", None),
    ("POST", "/batches", b'{"name": "b"}'),
    ("GET", "/batches/{id}", None),
    ("PUT", "/batches/{id}/images?name=a.jpg", samples.jpeg()),
    ("PUT", "/batches/{id}/archive", samples.archive({"a.jpg": samples.jpeg()})),
    ("GET", "/batches/{id}/images", None),
    ("GET", "/batches/{id}/refusals", None),
    ("GET", "/batches/{id}/report.csv", None),
    ("POST", "/batches/{id}/seal", None),
    ("POST", "/batches/{id}/cancel", None),
    ("POST", "/batches/{id}/retry", None),
    ("DELETE", "/batches/{id}", None),
]


def test_while_the_database_is_unreachable_everything_answers_503_and_then_works(
    settings: Settings, bundle: bundles.Bundle
) -> None:
    binaries = servers.postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's programs are not here")
    with servers.Postgresql(binaries) as server, application(settings, server.url) as app:
        servers.migrate(server.url)
        sessions = db.Sessions(server.url)
        lab = db.transact(sessions, labs.add, "lab")
        token = db.transact(sessions, access_tokens.issue, lab, "test")
        client, browser = with_token(app, token), app.test_client()
        csrf = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/sign-in").text)
        assert csrf and browser.post("/sign-in", data={"csrf_token": csrf[1], "token": token}).status_code == 302
        batch = fakes.create(sessions, lab, bundle)
        assert client.get(f"{api.BATCHES}/{batch.id}").status_code == 200
        server.stop()
        for method, path, body in ADDRESSES:
            answer = client.open(
                f"/api/v1{path}".replace("{id}", str(batch.id)),
                method=method,
                data=body,
                content_type="application/json" if path == "/batches" else "application/octet-stream",
            )
            api.assert_problem(answer, 503, "database_unavailable")
            assert answer.headers["Retry-After"] == "5"
        for path in ("/", f"/batches/{batch.id}"):
            page = browser.get(path)
            assert (page.status_code, page.mimetype) == (503, "text/html") and "no clinical" in page.text
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        server.start()
        assert client.get(f"{api.BATCHES}/{batch.id}").status_code == 200
        sessions.close()


# SQLite: another process holds the file.


@pytest.fixture
def impatient(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[db.Sessions]:
    """Sessions on SQLite that wait half a second for the file."""
    monkeypatch.setattr(db, "_SQLITE_BUSY_SECONDS", 0.5)
    found = db.Sessions(migrated_sqlite_url)
    yield found
    found.close()


@pytest.fixture
def other(impatient: db.Sessions) -> Iterator[sqlite3.Connection]:
    """Hold the lock that another process would hold."""
    path = impatient.engine.url.database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        yield connection


def test_a_locked_file_is_waited_for(impatient: db.Sessions, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.2, other.execute, ["ROLLBACK"]).start()
    db.transact(impatient, labs.add, "lab")
    assert count(impatient, Lab) == 1


def test_a_file_that_stays_locked_is_given_up_and_does_not_keep_readers_waiting(
    impatient: db.Sessions, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_RERUN_SECONDS", 0.8)
    other.execute("BEGIN IMMEDIATE")
    refused: list[float] = []

    def write() -> None:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable):
            db.transact(impatient, labs.add, "lab")
        refused.append(time.monotonic() - started)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert count(impatient, Lab) == 0
    for thread in threads:
        thread.join()
    other.execute("ROLLBACK")
    assert len(refused) == 8, "each is told, also those that waited for their turn behind the others"
    db.transact(impatient, labs.add, "lab")
    assert count(impatient, Lab) == 1


def test_the_web_says_503_while_the_file_is_locked(
    settings: Settings, impatient: db.Sessions, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_RERUN_SECONDS", 0.0)
    lab = db.transact(impatient, labs.add, "lab")
    token = db.transact(impatient, access_tokens.issue, lab, "test")
    url = f"sqlite:///{impatient.engine.url.database}"
    with application(settings, url) as app:
        client: FlaskClient = with_token(app, token)
        assert client.get(api.BATCHES).status_code == 200  # notes that the token was used
        other.execute("BEGIN IMMEDIATE")
        answer = client.post(api.BATCHES, json={"name": "b"})
        api.assert_problem(answer, 503, "database_unavailable")
        assert client.get(api.BATCHES).status_code == 200, "reading goes on"
        other.execute("ROLLBACK")
        assert client.post(api.BATCHES, json={"name": "b"}).status_code == 201
