"""Quotas of labs: each refuses with its value and when to try again, and what a lab keeps is counted exactly."""

import io
import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from dermq import archives, batches, bundles, conservation, db, deletion, errors, labs, quotas, transitions
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Batch, Image, Lab, LabUse
from dermq.principals import OPERATOR
from dermq.queue import claims, outcomes
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from tests import api, fakes, samples, scenarios
from tests.integration.conftest import with_token
from worker.intake import unpack

LAB = "/api/v1/lab"


def limit(sessions: db.Sessions, lab: Lab, **own: int | None) -> None:
    """Give a lab quotas of its own."""
    db.transact(sessions, lambda session: labs.change(session, session.get_one(Lab, lab.id), quotas=own))


def use(sessions: db.Sessions, lab: Lab) -> quotas.Use:
    return db.read(sessions, quotas.measure, lab.id)


def finish(sessions: db.Sessions, bundle: bundles.Bundle) -> None:
    scenarios.finish(sessions, scenarios.claimant(sessions, bundle))


def test_waiting_images_are_limited_and_room_comes_by_itself(
    client: FlaskClient, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    limit(sessions, lab, max_waiting_images=2)
    batch = api.create(client)
    for name in ("a.jpg", "b.jpg"):
        assert api.put(client, batch, name).status_code == 202
    refused = api.put(client, batch, "c.jpg")
    detail = api.assert_problem(refused, 429, "quota_waiting_images")["detail"]
    assert "quota of 2" in detail and "in 30 s" in detail
    assert refused.headers["Retry-After"] == "30"
    assert api.put(client, batch, "a.jpg").status_code == 200  # it is there already
    assert api.refusals(client, batch) == {}  # it may still come, so it is not refused for good
    finish(sessions, bundle)
    assert api.put(client, batch, "c.jpg").status_code == 202


def test_retries_wait_for_room_as_well(
    client: FlaskClient, sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle
) -> None:
    limit(sessions, lab, max_waiting_images=2)
    who, failed = scenarios.claimant(sessions, bundle), api.create(client)
    for name in ("a.jpg", "b.jpg"):
        api.put(client, failed, name)
    lease = scenarios.take_next(sessions, who)
    assert lease is not None
    failures = [outcomes.Failed(image.id, "damaged", "damaged") for image in lease.images]
    db.transact(sessions, claims.record, lease.token, failures)
    waiting = api.create(client)
    for name in ("a.jpg", "b.jpg"):
        assert api.put(client, waiting, name).status_code == 202
    api.assert_problem(client.post(api.url(failed, "/retry")), 429, "quota_waiting_images")
    assert use(sessions, lab).waiting_images == 2
    finish(sessions, bundle)
    assert client.post(api.url(failed, "/retry")).status_code == 202


def test_a_request_with_too_many_files_is_refused_as_a_whole(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, lab: Lab
) -> None:
    limit(sessions, lab, max_waiting_images=2)
    files = [(f"{at}.jpg", samples.jpeg(at)) for at in range(3)]
    api.assert_problem(api.send(client, files), 429, "quota_waiting_images")
    assert client.get(api.BATCHES).get_json()["batches"] == []
    assert blobs.list_batches(older_than_seconds=-60) == []
    assert api.send(client, files[:2]).status_code == 202


def test_kept_bytes_are_limited_and_deleting_makes_room(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, lab: Lab
) -> None:
    one, other = len(samples.jpeg(1)), len(samples.jpeg(2))
    most = one + max(one, other)
    limit(sessions, lab, max_kept_bytes=most)
    first, second = api.create(client), api.create(client)
    assert api.put(client, first, "a.jpg", samples.jpeg(1)).status_code == 202
    assert api.put(client, second, "b.jpg", samples.jpeg(1)).status_code == 202
    refused = api.put(client, second, "c.jpg", samples.jpeg(2))
    detail = api.assert_problem(refused, 507, "quota_kept_bytes")["detail"]
    assert f"quota is {most:,}" in detail and "Delete batches" in detail
    assert api.put(client, second, "same.jpg", samples.jpeg(1)).status_code == 202  # equal files are stored once
    client.delete(api.url(first))
    assert api.put(client, second, "c.jpg", samples.jpeg(2)).status_code == 202


@pytest.mark.parametrize("announced", [True, False])
def test_an_archive_over_the_bytes_is_refused_and_leaves_nothing(
    client: FlaskClient, sessions: db.Sessions, blobs: LocalStore, lab: Lab, announced: bool
) -> None:
    data = samples.archive({"a.jpg": samples.jpeg()})
    limit(sessions, lab, max_kept_bytes=len(data) - 1)
    batch = api.create(client)
    length = len(data) if announced else None
    sent = client.put(api.url(batch, "/archive"), environ_overrides=api.streamed(io.BytesIO(data), length))
    api.assert_problem(sent, 507, "quota_kept_bytes")
    assert api.status(client, batch)["counts"]["archives_open"] == 0
    assert use(sessions, lab).kept_bytes == 0
    limit(sessions, lab, max_kept_bytes=len(data))
    assert client.put(api.url(batch, "/archive"), data=data).status_code == 202
    assert use(sessions, lab).kept_bytes == len(data)


def test_open_batches_are_limited_and_sealing_makes_room(client: FlaskClient, sessions: db.Sessions, lab: Lab) -> None:
    limit(sessions, lab, max_open_batches=2)
    first = client.post(api.BATCHES, json={"name": "x"}, headers={"Idempotency-Key": "k"}).get_json()
    api.create(client)
    refused = client.post(api.BATCHES, json={"name": "third"})
    detail = api.assert_problem(refused, 403, "quota_open_batches")["detail"]
    assert "quota allows: 2." in detail and "60 minutes" in detail
    again = client.post(api.BATCHES, json={"name": "x"}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 201 and again.get_json()["id"] == first["id"]
    assert api.send(client, [("a.jpg", samples.jpeg())], seal="true").status_code == 202  # it never was open
    client.post(api.url(first, "/seal"))
    assert client.post(api.BATCHES, json={"name": "third"}).status_code == 201


def test_requests_are_limited_by_lab(
    make_app: Callable[..., APIFlask], sessions: db.Sessions, lab: Lab, token: str
) -> None:
    app = make_app(lab_requests_per_minute=3)
    client = with_token(app, token)
    assert [client.get(api.BATCHES).status_code for _ in range(3)] == [200] * 3
    refused = client.get(api.BATCHES)
    detail = api.assert_problem(refused, 429, "quota_requests")["detail"]
    assert "3 requests within a minute" in detail and 0 < int(refused.headers["Retry-After"]) <= 120
    assert app.test_client().get("/health/live").status_code == 200
    limit(sessions, lab, max_requests_per_minute=1000)
    assert client.get(api.BATCHES).status_code == 200


def test_one_labs_quota_is_not_anothers(
    client: FlaskClient, stranger: FlaskClient, sessions: db.Sessions, lab: Lab
) -> None:
    limit(sessions, lab, max_waiting_images=1, max_kept_bytes=1, max_open_batches=1)
    batch = api.create(stranger)
    assert [api.put(stranger, batch, f"{at}.jpg", samples.jpeg(at)).status_code for at in range(3)] == [202] * 3
    api.create(stranger)


def test_the_quotas_of_the_settings_hold_for_every_lab(
    make_app: Callable[..., APIFlask], token: str, sessions: db.Sessions
) -> None:
    client = with_token(make_app(lab_waiting_images=1, lab_kept_bytes=50, lab_open_batches=2), token)
    api.assert_problem(api.put(client, api.create(client), "a.jpg"), 507, "quota_kept_bytes")
    seen = client.get(LAB).get_json()["quotas"]
    assert [seen[name]["limit"] for name in ("waiting_images", "kept_bytes", "open_batches")] == [1, 50, 2]


def test_a_lab_sees_its_quotas_and_what_it_uses(client: FlaskClient, sessions: db.Sessions, lab: Lab) -> None:
    limit(sessions, lab, max_waiting_images=7)
    batch = api.create(client)
    data = samples.jpeg(1)
    api.put(client, batch, "a.jpg", data)
    seen = client.get(LAB).get_json()
    assert seen["name"] == "lab" and seen["scopes"] == ["manage", "read", "submit"]
    assert seen["quotas"]["waiting_images"] == {"limit": 7, "used": 1}
    assert seen["quotas"]["kept_bytes"] == {"limit": 200_000_000_000, "used": len(data)}
    assert seen["quotas"]["open_batches"] == {"limit": 200, "used": 1}
    assert seen["quotas"]["requests_per_minute"] == {"limit": 200_000, "used": 3}


def unpack_for(seconds: float, settings: Settings, sessions: db.Sessions, blobs: LocalStore) -> None:
    """Unpack as the intake worker does."""
    short = settings.model_copy(update={"drain_seconds": seconds})
    unpack.drain(fakes.runtime(short, sessions, blobs, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "code"), [({"max_waiting_images": 1}, "quota_waiting_images"), ({"max_kept_bytes": 1}, "quota_kept_bytes")]
)
def test_an_archive_waits_for_room_and_loses_nothing(
    client: FlaskClient,
    sessions: db.Sessions,
    settings: Settings,
    blobs: LocalStore,
    lab: Lab,
    own: dict[str, int],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpack, "_PAUSE_SECONDS", 0.01)
    batch = api.create(client)
    api.put(client, batch, "first.jpg")
    files = {f"{at}.jpg": samples.jpeg(at) for at in range(5)}
    client.put(api.url(batch, "/archive"), data=samples.archive(files))
    limit(sessions, lab, **own)
    unpack_for(0.2, settings, sessions, blobs)
    waiting = client.get(api.url(batch, "/archives")).get_json()["archives"][0]
    assert (waiting["state"], waiting["received"], waiting["refused"]) == ("stored", 0, 0)
    assert waiting["waiting"]["code"] == code and "goes on by itself" in waiting["waiting"]["detail"]
    limit(sessions, lab, **dict.fromkeys(own))
    unpack_for(30, settings, sessions, blobs)
    done = client.get(api.url(batch, "/archives")).get_json()["archives"][0]
    assert (done["state"], done["received"], done["refused"], done["error"]) == ("done", 5, 0, None)


def test_what_a_lab_keeps_is_the_sum_of_its_files_whatever_happens(
    sessions: db.Sessions, settings: Settings, blobs: LocalStore, lab: Lab, bundle: bundles.Bundle
) -> None:
    """Random uploads with equal files, archives, cancels and deletions; after each, the counts equal the rows."""
    dice = random.Random(7)
    live: list[Batch] = []
    for _ in range(60):
        act = dice.choice(("create", "upload", "upload", "upload", "archive", "unpack", "cancel", "delete"))
        if act == "create" or not live:
            live.append(fakes.create(sessions, lab, bundle))
            continue
        batch = dice.choice(live)
        try:
            if act == "upload":
                names = {f"{dice.randrange(20)}.jpg": samples.jpeg(dice.randrange(6)) for _ in range(3)}
                fakes.add(sessions, blobs, settings, batch, names)
            elif act == "archive":
                store_archive(sessions, blobs, batch, samples.archive({"z.jpg": samples.jpeg(dice.randrange(99))}))
            elif act == "unpack":
                close_archives(sessions, batch)
            elif act == "cancel":
                db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
                db.transact(sessions, batches.sweep, batch.id)
            else:
                db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
                deletion.purge(sessions, blobs, batch.id)
                live.remove(batch)
        except errors.Conflict:
            pass
        assert_conserved(sessions, blobs, lab, live)
    assert use(sessions, lab).kept_bytes > 0
    for batch in live:
        db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
        deletion.purge(sessions, blobs, batch.id)
    assert use(sessions, lab).kept_bytes == 0


def store_archive(sessions: db.Sessions, blobs: LocalStore, batch: Batch, data: bytes) -> None:
    archive_id = uuid.uuid4()
    with blobs.receive() as file:
        db.transact(sessions, archives.begin, batch.id, archive_id)
        file.write(data)
        file.finish()
        archives.keep(sessions, blobs, archive_id, file)
        db.transact(sessions, archives.store, archive_id, file)


def close_archives(sessions: db.Sessions, batch: Batch) -> None:
    def work(session: Any) -> None:
        stored = sa.select(Archive).where(Archive.batch_id == batch.id, Archive.state == ArchiveState.STORED)
        for archive in session.scalars(stored.with_for_update()).all():
            transitions.move_archive(session, archive, ArchiveState.UNPACKING)
            session.refresh(archive)
            archives.close(session, archive, ArchiveState.DONE)

    db.transact(sessions, work)


def assert_conserved(sessions: db.Sessions, blobs: LocalStore, lab: Lab, live: list[Batch]) -> None:
    assert db.read(sessions, conservation.find_wrong_uses) == []
    for batch in live:
        assert conservation.audit(sessions, blobs, batch.id).findings == ()
    files = sa.select(Image.batch_id, Image.sha256, Image.bytes).distinct()
    kept = {(row.batch_id, row.sha256): row.bytes for row in db.read(sessions, lambda s: s.execute(files).all())}
    waiting = sa.select(sa.func.coalesce(sa.func.sum(Archive.bytes), 0)).where(
        Archive.state.in_([ArchiveState.STORED, ArchiveState.UNPACKING])
    )
    total = sum(kept.values()) + int(db.read(sessions, lambda s: s.execute(waiting).scalar_one()))
    assert use(sessions, lab).kept_bytes == total


def test_a_wrong_sum_of_a_lab_is_found(sessions: db.Sessions, lab: Lab) -> None:
    db.transact(sessions, lambda session: session.execute(sa.update(LabUse).values(kept_bytes=5)) and None)
    [finding] = db.read(sessions, conservation.find_wrong_uses)
    assert "lab 'lab' (kept_bytes: 5 counted, 0 in batches)" in finding.detail
