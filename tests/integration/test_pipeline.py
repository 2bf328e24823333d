"""The pipeline with a fake engine: every image ends exactly once, even when the engine or a file fails."""

import contextlib
import dataclasses
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from dermq import batches, bundles, db, errors
from dermq.models import Batch, Lab
from dermq.models import Image as ImageRow
from dermq.notes import Note
from dermq.principals import OPERATOR
from dermq.queue import claims
from dermq.settings import Settings
from dermq.storage.local import LocalStore
from dermq.storage.protocol import THUMBNAIL
from dermq.wakeups import Queue
from tests import deadly_decoder, fakes, samples
from worker.classify import engines, model, pipeline, prediction
from worker.classify.engines import Outputs
from worker.classify.engines.onnx import OnnxEngine
from worker.decoders.decoder import Decoder
from worker.decoders.pictures import Picture
from worker.decoders.pool import Decoders
from worker.process import backoff
from worker.process.shutdown import ExitNote


@pytest.fixture
def batch(sessions: db.Sessions, lab: Lab, bundle: bundles.Bundle) -> Batch:
    return fakes.create(sessions, lab, bundle)


@pytest.fixture
def small(settings: Settings) -> Settings:
    """Claims of eight images in steps of four."""
    return settings.model_copy(update={"claim_images": 8, "step_images": 4})


def counts(batch: Batch) -> tuple[int, ...]:
    return batch.received, batch.queued, batch.running, batch.done, batch.failed


def test_a_drain_classifies_everything_that_waits(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(20))
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    runtime = fakes.runtime(small, sessions, blobs, bundle, engine := fakes.Engine())
    pipeline.drain(runtime)
    found = fakes.get(sessions, batch)
    assert counts(found) == (20, 0, 0, 20, 0) and found.finished_at is not None
    assert engine.steps == [4, 4, 4, 4, 4] and fakes.predictions(sessions, batch.id) == 20
    first = fakes.images(sessions, batch)[0]
    assert first.sha256 + THUMBNAIL in blobs.list(batch.id) and (first.width, first.height) == (64, 48)


def test_a_full_claim_wakes_another_worker(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(9))
    runtime = fakes.runtime(small, sessions, blobs, bundle, fakes.Engine())
    pipeline.drain(runtime)
    assert runtime.wakeups.sent == [Queue.CLASSIFY]  # type: ignore[attr-defined]


def test_a_damaged_image_fails_alone(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    files = {**fakes.pictures(3), "bad.jpg": samples.truncated_jpeg()}
    fakes.add(sessions, blobs, small, batch, files)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert counts(fakes.get(sessions, batch)) == (4, 0, 0, 3, 1)
    bad = fakes.images(sessions, batch)[3]
    assert bad.error_code == "damaged" and "damaged" in str(bad.error_detail)


def test_what_leading_bytes_do_not_show_is_received_and_then_fails(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    first, second = samples.picture(seed=1), samples.picture(seed=2)
    files = {
        "pages.tif": samples.encoded(first, "TIFF", save_all=True, append_images=[second]),
        "large.tif": samples.encoded(samples.picture(400, 300), "TIFF"),
        "header.tif": b"II*\0" + bytes(60),
    }
    limited = small.model_copy(update={"max_image_pixels": 100_000})
    fakes.add(sessions, blobs, limited, batch, files)
    pipeline.drain(fakes.runtime(limited, sessions, blobs, bundle, fakes.Engine()))
    found = fakes.images(sessions, batch)
    assert [image.error_code for image in found] == ["several_frames", "too_many_pixels", "damaged"]
    assert [(image.width, image.height) for image in found] == [(None, None)] * 3


def test_notes_of_a_file_are_kept_with_those_that_its_image_has(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(2))
    first, second = ({"code": code, "detail": f"{code}."} for code in ("early", "late"))
    wanted = sa.update(ImageRow).where(ImageRow.position == 1).values(notes=[first, second])
    db.transact(sessions, lambda session: session.execute(wanted))
    receive = Decoder.receive

    def noted(*arguments: Any) -> Picture:
        return dataclasses.replace(receive(*arguments), notes=(Note(**second),))

    monkeypatch.setattr(Decoder, "receive", noted)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert [image.notes for image in fakes.images(sessions, batch)] == [[first, second], [second]]


def test_an_image_that_exhausts_memory_fails_alone(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    black = samples.encoded(samples.picture().point(lambda value: 0), "PNG")
    fakes.add(sessions, blobs, small, batch, {**fakes.pictures(6), "black.png": black})
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)

    def exhaust(pixels: NDArray[np.uint8]) -> None:
        if (pixels.reshape(len(pixels), -1).max(axis=1) == 0).any():
            raise MemoryError

    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(exhaust)))
    found = fakes.get(sessions, batch)
    assert counts(found) == (7, 0, 0, 6, 1) and found.finished_at is not None
    assert [image.error_code for image in fakes.images(sessions, batch)] == [None] * 6 + ["worker_lost"]


@pytest.fixture
def deadly(settings: Settings) -> Iterator[Callable[[str, bytes], Decoders]]:
    """Starts decoders that die of one file."""
    with contextlib.ExitStack() as stack:

        def start(death: str, data: bytes) -> Decoders:
            quick = settings.model_copy(update={"decode_seconds": 1.5, "decoder_memory_bytes": 600_000_000})
            command = deadly_decoder.command({deadly_decoder.sha256(data): death})
            return stack.enter_context(contextlib.closing(Decoders(quick, command)))

        yield start


@pytest.mark.parametrize(
    ("death", "code"),
    [
        ("error", "decoder_crashed"),
        ("segfault", "decoder_crashed"),
        ("kill", "decoder_crashed"),
        ("nonsense", "decoder_crashed"),
        ("memory", "out_of_memory"),
        ("hang", "decode_timeout"),
    ],
)
def test_an_image_over_which_decoders_are_lost_fails_alone(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    deadly: Callable[[str, bytes], Decoders],
    death: str,
    code: str,
) -> None:
    black = samples.encoded(samples.picture().point(lambda value: 0), "PNG")
    pictures = list(fakes.pictures(20).items())
    fakes.add(sessions, blobs, small, batch, dict([*pictures[:2], ("black.png", black), *pictures[2:]]))
    db.transact(sessions, batches.seal, batch.id, by=OPERATOR)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(), decoding=deadly(death, black)))
    found = fakes.get(sessions, batch)
    assert counts(found) == (21, 0, 0, 20, 1) and found.finished_at is not None
    images = fakes.images(sessions, batch)
    assert [image.error_code for image in images] == [None] * 2 + [code] + [None] * 18
    assert not any(image.suspect or image.solo_losses for image in images), "no claim was lost"


def test_a_score_that_is_no_number_is_not_recorded(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "verify", lambda *_: None)  # the golden inputs give the right outputs

    class Odd(fakes.Engine):
        def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
            found = super().predict(pixels)
            black = pixels.reshape(len(pixels), -1).max(axis=1) == 0
            return Outputs(found.probabilities, np.where(black, np.float32("nan"), found.ood_scores))

    black = samples.encoded(samples.picture().point(lambda value: 0), "PNG")
    fakes.add(sessions, blobs, small, batch, {**fakes.pictures(6), "black.png": black})
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, Odd()))
    assert counts(fakes.get(sessions, batch)) == (7, 0, 0, 6, 1)


def test_a_claim_that_cannot_be_decoded_at_all_is_given_back_uncharged(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    fakes.add(sessions, blobs, small, batch, fakes.pictures(3))
    monkeypatch.setattr(Decoders, "submit", start)
    with pytest.raises(RuntimeError, match="new thread"):
        pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert counts(fakes.get(sessions, batch)) == (3, 3, 0, 0, 0)
    assert not any(image.suspect for image in fakes.images(sessions, batch))


def test_a_decoder_that_does_not_start_charges_no_image(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.1, 0.1))
    fakes.add(sessions, blobs, small, batch, fakes.pictures(3))
    brief = small.model_copy(update={"drain_seconds": 1.0})
    with contextlib.closing(Decoders(small, ["/bin/false"])) as broken:
        pipeline.drain(fakes.runtime(brief, sessions, blobs, bundle, fakes.Engine(), decoding=broken))
    assert counts(fakes.get(sessions, batch)) == (3, 3, 0, 0, 0)
    assert not any(image.suspect for image in fakes.images(sessions, batch))


def test_a_stop_does_not_wait_for_a_slow_decoder(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    deadly: Callable[[str, bytes], Decoders],
) -> None:
    black = samples.encoded(samples.picture().point(lambda value: 0), "PNG")
    pictures = list(fakes.pictures(7).items())
    fakes.add(sessions, blobs, small, batch, dict([*pictures[:5], ("black.png", black), *pictures[5:]]))
    runtime = fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(), decoding=deadly("hang", black))

    def stop() -> None:
        assert _eventually(lambda: fakes.get(sessions, batch).done == 7)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as other:
        stopped = other.submit(stop)
        pipeline.drain(runtime)
        assert stopped.done() and stopped.exception() is None, "the drain ended because it was told to"
    assert counts(fakes.get(sessions, batch)) == (8, 1, 0, 7, 0), "only the slow image was given back"
    assert not any(image.suspect for image in fakes.images(sessions, batch))


def test_a_worker_that_the_watchdog_ends_loses_its_claims_and_one_that_is_stopped_gives_them_back(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(20))

    def end(pixels: NDArray[np.uint8]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def end_by_watchdog(pixels: NDArray[np.uint8]) -> None:
        ExitNote(small, os.getppid()).write(1, "stalled")
        end(pixels)

    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(end)))
    assert not any(image.suspect for image in fakes.images(sessions, batch))
    assert counts(fakes.get(sessions, batch)) == (20, 16, 0, 4, 0)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(end_by_watchdog)))
    suspects = [image for image in fakes.images(sessions, batch) if image.suspect]
    assert fakes.get(sessions, batch).queued == 12
    assert len(suspects) in {4, 12} and not any(one.solo_losses for one in suspects), "of one claim, or of two"


def _eventually(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


def test_a_fault_of_the_storage_charges_no_image(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.1, 0.1))
    fakes.add(sessions, blobs, small, batch, fakes.pictures(5))
    away = blobs.root.rename(blobs.root.with_name("not mounted"))
    with pytest.raises(errors.Transient, match="not the one used before"):  # the upload must not create a new store
        fakes.add(sessions, blobs, small, batch, {"late.png": samples.encoded(samples.picture(), "PNG")})
    runtime = fakes.runtime(small.model_copy(update={"drain_seconds": 1.0}), sessions, blobs, bundle, fakes.Engine())
    pipeline.drain(runtime)
    assert counts(fakes.get(sessions, batch)) == (5, 5, 0, 0, 0)
    shutil.rmtree(blobs.root)
    away.rename(blobs.root)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert counts(fakes.get(sessions, batch)) == (5, 0, 0, 5, 0)
    assert not any(image.solo_losses for image in fakes.images(sessions, batch))


def test_a_lost_engine_is_waited_for_then_ends_the_process_and_charges_no_image(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.01, 0.01))
    fakes.add(sessions, blobs, small, batch, fakes.pictures(5))

    def broken(pixels: NDArray[np.uint8]) -> None:
        raise RuntimeError("device lost")

    with pytest.raises(prediction.EngineLost, match="device lost"):
        pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(broken)))
    assert counts(fakes.get(sessions, batch)) == (5, 5, 0, 0, 0)
    assert not any(image.suspect for image in fakes.images(sessions, batch))


def test_a_missing_file_fails_its_image_alone(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(5))
    blobs.delete(batch.id, fakes.images(sessions, batch)[2].sha256)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert counts(fakes.get(sessions, batch)) == (5, 0, 0, 4, 1)
    assert fakes.images(sessions, batch)[2].error_code == "blob_unreadable"


def test_an_unreachable_database_while_giving_back_makes_no_suspects(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.01, 0.01))
    fakes.add(sessions, blobs, small, batch, fakes.pictures(16))
    give_back, calls = claims.give_back, []

    def away_at_first(session: Session, token: uuid.UUID, *, lost: bool = False) -> None:
        calls.append(token)
        if len(calls) == 1:
            raise errors.Unavailable("database_unavailable", "away")
        give_back(session, token, lost=lost)

    def storage_fails(pixels: NDArray[np.uint8]) -> None:
        raise errors.Transient("storage_failed", "gone")

    monkeypatch.setattr(claims, "give_back", away_at_first)
    monkeypatch.setattr(model, "verify", lambda bundle, engine: None)
    engine = fakes.Engine(storage_fails)
    runtime = fakes.runtime(small.model_copy(update={"drain_seconds": 0.05}), sessions, blobs, bundle, engine)
    monkeypatch.setattr(prediction.Predictor, "_run_engine", lambda self, pixels: engine.predict(pixels))
    pipeline.drain(runtime)
    assert counts(fakes.get(sessions, batch)) == (16, 16, 0, 0, 0) and len(calls) >= 2
    assert Queue.CLASSIFY in runtime.wakeups.sent  # type: ignore[attr-defined]


def test_a_batch_cancelled_midway_keeps_what_was_done(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(30))
    engine = fakes.Engine()

    def cancel(pixels: NDArray[np.uint8]) -> None:
        if len(engine.steps) == 1:
            db.transact(sessions, batches.cancel, batch.id, by=OPERATOR)
            db.transact(sessions, batches.sweep, batch.id)

    engine.before = cancel
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, engine))
    found = fakes.get(sessions, batch)
    assert found.done == 16 and found.cancelled == 14 and found.running == 0 and found.finished_at is not None


def test_a_batch_deleted_midway_is_gone(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, batch: Batch
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(10))

    def delete(pixels: NDArray[np.uint8]) -> None:
        db.transact(sessions, batches.mark_deleted, batch.id, by=OPERATOR)
        db.transact(sessions, batches.sweep, batch.id)
        while db.transact(sessions, batches.purge_page, batch.id):
            pass
        blobs.delete_batch(batch.id)

    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine(delete)))
    assert db.read(sessions, lambda session: session.get(Batch, batch.id)) is None
    assert blobs.list(batch.id) == []


def test_suspects_and_all_others_take_turns(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes.add(sessions, blobs, small, batch, fakes.pictures(23))
    runtime = fakes.runtime(small, sessions, blobs, bundle, fakes.Engine())
    who = claims.Claimant("lost", db.transact(sessions, batches.ensure_bundle_row, bundle).id, lease_seconds=-1)
    lease = db.transact(sessions, claims.take, who, 3)
    assert lease is not None and db.transact(sessions, claims.expire, lease.token)
    sizes: list[int] = []

    def noted(act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        lease = act(*arguments, **options)
        sizes.extend([len(lease.images)] if lease else [])
        return lease

    for name in ("take", "take_suspect"):
        monkeypatch.setattr(claims, name, partial(noted, getattr(claims, name)))
    pipeline.drain(runtime)
    most = small.claim_images
    assert sizes == [1, most, 1, most, 1, 20 - 2 * most]
    assert counts(fakes.get(sessions, batch))[3] == 23


def test_only_images_of_the_loaded_bundle_are_claimed(
    sessions: db.Sessions, blobs: LocalStore, small: Settings, bundle: bundles.Bundle, lab: Lab
) -> None:
    other = bundles.Bundle(bundle.path, bundle.card, "f" * 64)
    batch = fakes.create(sessions, lab, other)
    fakes.add(sessions, blobs, small, batch, fakes.pictures(2))
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert counts(fakes.get(sessions, batch)) == (2, 2, 0, 0, 0)


def test_an_unverified_bundle_is_unfit(bundle: bundles.Bundle) -> None:
    with pytest.raises(errors.Unfit, match="golden inputs"):
        model.verify(bundle, fakes.Engine())


def test_an_engine_whose_scores_of_strangeness_differ_is_unfit(bundle: bundles.Bundle) -> None:
    class Careless(OnnxEngine):
        def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
            outputs = super().predict(pixels)
            return Outputs(outputs.probabilities, outputs.ood_scores * np.float32(1.01))

    engine = Careless()
    engine.load(bundle)
    with pytest.raises(errors.Unfit, match="out-of-distribution scores"):
        model.verify(bundle, engine)


def test_another_bundle_that_cannot_be_read_stops_nobody(
    settings: Settings, bundle: bundles.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half-written").mkdir()
    (tmp_path / "half-written" / "card.json").write_text("{")
    shutil.copytree(bundle.path, tmp_path / "good")
    (tmp_path / "current").write_text("good")
    monkeypatch.setattr(engines, "create", lambda *_, **__: fakes.Engine())
    monkeypatch.setattr(model, "verify", lambda bundle, engine: None)
    found = model.Models(tmp_path, "onnx", step_images=4).find([bundle.sha256])
    assert found is not None and found.bundle.sha256 == bundle.sha256


def test_a_bundle_that_images_wait_for_and_that_is_missing_is_logged_once(
    tmp_path: Path, bundle: bundles.Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(bundle.path, tmp_path / "good")
    (tmp_path / "current").write_text("good")
    models = model.Models(tmp_path, "onnx", step_images=4)
    for _ in range(3):
        assert models.find(["0" * 64]) is None
    assert [record.getMessage().count("0" * 64) for record in caplog.records] == [1]


def test_losses_of_the_engine_count_in_a_row_only(
    sessions: db.Sessions,
    blobs: LocalStore,
    small: Settings,
    bundle: bundles.Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "PAUSE_SECONDS", (0.01, 0.01))
    lost = errors.Transient("storage_failed", "gone"), prediction.EngineLost("engine_lost", "lost")
    rounds: list[bool | Exception] = [lost[1], lost[1], True, lost[1], lost[1], lost[0], lost[1], False]

    def work(*_: object) -> bool:
        found = rounds.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(pipeline, "_work", work)
    pipeline.drain(fakes.runtime(small, sessions, blobs, bundle, fakes.Engine()))
    assert rounds == []
