"""Real worker processes with a real Valkey and the current bundle: kills, stops, a bundle with wrong golden outputs."""

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from dermq import archives, batches, bundles, db, labs
from dermq.lifecycle import ArchiveState
from dermq.models import Archive, Claim
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.wakeups import Queue, Wakeups
from tests import fakes, samples
from tests.processes import IMAGES, Programs, is_alive, pool, runs, submit, until


def test_a_worker_killed_midway_loses_and_doubles_nothing(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    start("reaper")
    worker = start("classify")
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed, stored, bundle)
    until(lambda: fakes.get(stored, batch).done >= 8)
    os.killpg(worker.pid, signal.SIGKILL)
    assert fakes.get(stored, batch).done < IMAGES
    start("classify")
    until(lambda: fakes.get(stored, batch).finished_at is not None)
    found = fakes.get(stored, batch)
    assert (found.received, found.done, found.failed) == (IMAGES, IMAGES, 0)
    assert fakes.predictions(stored, batch.id) == IMAGES


def test_a_killed_pool_process_is_replaced(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    start("reaper")
    worker = start("classify")
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed, stored, bundle)
    until(lambda: fakes.get(stored, batch).done >= 8)
    [child] = pool(worker)
    child.kill()
    until(lambda: fakes.get(stored, batch).finished_at is not None)
    assert fakes.get(stored, batch).done == IMAGES and fakes.predictions(stored, batch.id) == IMAGES


@pytest.mark.parametrize("group", [False, True], ids=["worker", "process group"])
def test_a_stopped_worker_gives_everything_back_at_once(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle, group: bool
) -> None:
    worker = start("classify")
    until(lambda: is_alive(stored, Queue.CLASSIFY))
    batch = submit(deployed, stored, bundle)
    until(lambda: fakes.get(stored, batch).done >= 8)
    stop = os.killpg if group else os.kill
    stop(worker.pid, signal.SIGTERM)
    assert until(lambda: fakes.get(stored, batch).running == 0) < 4
    assert worker.wait(timeout=20) == 0
    claims = db.read(stored, lambda session: session.scalar(sa.select(sa.func.count()).select_from(Claim)))
    found = fakes.get(stored, batch)
    assert claims == 0 and found.queued + found.done == IMAGES and found.queued > 0
    assert not any(image.suspect for image in fakes.images(stored, batch))
    assert not is_alive(stored, Queue.CLASSIFY)


@pytest.mark.parametrize("group", [False, True], ids=["worker", "process group"])
def test_a_stopped_unpacker_puts_its_archive_back_at_once(
    deployed: Settings, stored: db.Sessions, start: Programs, bundle: bundles.Bundle, group: bool
) -> None:
    worker = start("intake")
    until(lambda: is_alive(stored, Queue.INTAKE))
    entries = 2_000
    batch = fakes.create(stored, db.transact(stored, labs.add, "archivist"), bundle)
    archive_id, blobs = batches.make_id(), LocalStore(deployed.blobs)
    db.transact(stored, archives.begin, batch.id, archive_id)
    with blobs.receive() as file:
        file.write(samples.archive(fakes.pictures(entries)))
        file.finish()
        archives.keep(stored, blobs, archive_id, file)
        db.transact(stored, archives.store, archive_id, file)
    Wakeups(deployed).send(Queue.INTAKE)
    until(lambda: fakes.get(stored, batch).received > 0)
    stop = os.killpg if group else os.kill
    stop(worker.pid, signal.SIGTERM)
    wanted = sa.select(Archive.state, Archive.losses, Archive.next_entry).where(Archive.id == archive_id)
    assert until(lambda: db.read(stored, lambda session: session.scalar(wanted)) == ArchiveState.STORED) < 4
    assert worker.wait(timeout=20) == 0
    _, losses, next_entry = db.read(stored, lambda session: session.execute(wanted).one())
    assert losses == 0 and fakes.get(stored, batch).received == next_entry < entries
    start("intake")
    Wakeups(deployed).send(Queue.INTAKE)
    until(lambda: fakes.get(stored, batch).received == entries)


def test_a_worker_whose_bundle_has_wrong_golden_outputs_does_not_start(
    tmp_path: Path, stored: db.Sessions, start: Programs, bundle: bundles.Bundle
) -> None:
    """The bundle has wrong golden probabilities and a matching hash in its card, as from a faulty export."""
    lying = tmp_path / "bundles" / "lying"
    shutil.copytree(bundle.path, lying)
    (tmp_path / "bundles" / "current").write_text("lying")
    with np.load(lying / "golden.npz") as golden:
        arrays = dict(golden)
    np.savez(lying / "golden.npz", **{**arrays, "probabilities": arrays["probabilities"][:, ::-1]})
    card = json.loads((lying / "card.json").read_text())
    card["files"]["golden.npz"] = hashlib.sha256((lying / "golden.npz").read_bytes()).hexdigest()
    (lying / "card.json").write_text(json.dumps(card))
    worker = start("classify", bundles_dir=tmp_path / "bundles")
    assert worker.wait(timeout=60) == 78
    assert not is_alive(stored, Queue.CLASSIFY)


def test_a_worker_with_a_damaged_model_does_not_start(tmp_path: Path, start: Programs, bundle: bundles.Bundle) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundles" / "damaged")
    (tmp_path / "bundles" / "current").write_text("damaged")
    with (tmp_path / "bundles" / "damaged" / "model.onnx").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\0\0\0")
    assert start("classify", bundles_dir=tmp_path / "bundles").wait(timeout=60) == 78


def test_a_worker_that_starts_before_its_database_waits_for_it(deployed: Settings, start: Programs) -> None:
    assert deployed.database_url.startswith("sqlite")
    database = Path(deployed.database_url.removeprefix("sqlite:///"))
    away = database.rename(database.with_suffix(".away"))
    database.mkdir()  # a folder, so that SQLite cannot open a file there
    worker = start("classify")
    time.sleep(6)
    assert runs(worker)
    database.rmdir()
    away.rename(database)
    sessions = db.Sessions(deployed.database)
    until(lambda: is_alive(sessions, Queue.CLASSIFY))
    sessions.close()
