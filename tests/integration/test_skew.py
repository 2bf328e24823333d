"""No skew between training and workers: on real images, a report has the predictions of ``training.evaluate``."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from dermq import bundles, scoring, taxonomy
from dermq.settings import Settings
from tests import api
from training import evaluate, manifest
from worker.classify import pipeline, runtime

EVERY = 8
"""The step through the 2,051 test images, which gives 257 images."""
SOURCE = "full_200x150"
ROUNDING = 1e-6


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """Only SQLite, because the comparison does not depend on the database."""
    return migrated_sqlite_url


@pytest.fixture
def held_out(shared: Path, tmp_path: Path) -> manifest.Manifest:
    """Every eighth test image, as training sees it."""
    with (shared / "ham10000" / "metadata.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"][::EVERY]
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    archive = tmp_path / f"{SOURCE}.zip"
    with zipfile.ZipFile(shared / "ham10000" / archive.name) as whole, zipfile.ZipFile(archive, "w") as part:
        for row in rows:
            part.writestr(f"{row['image_id']}.jpg", whole.read(f"{row['image_id']}.jpg"))
    return manifest.prepare(tmp_path / "metadata.csv", {SOURCE: [archive]})


def test_a_report_of_real_images_says_what_evaluate_measures(
    client: FlaskClient, settings: Settings, database_url: str, bundle: bundles.Bundle, held_out: manifest.Manifest
) -> None:
    files = manifest.read_files(held_out.places[SOURCE])
    sent = api.send(client, list(files), seal="true").get_json()
    assert sent["counts"]["queued"] == len(held_out.entries) >= 256

    worker = runtime.build(settings.model_copy(update={"database_url": database_url}))
    worker.heartbeat.start(worker.load())
    pipeline.drain(worker)
    worker.close()

    report = csv.DictReader(io.StringIO(client.get(api.url(sent, "/report.csv")).get_data(as_text=True)))
    rows = {row["file_name"]: row for row in report}
    reported = [rows[entry.member] for entry in held_out.entries]
    size, data = bundle.card.input_size, settings.var_dir / "pixels"
    graph, version = bundle.path / bundles.ONNX_MODEL, bundle.card.recipe.version
    measured = evaluate.predict(graph, size, held_out, "test", data, recipe_version=version)
    probabilities = np.array([[float(row[f"p_{code}"]) for code in taxonomy.CODES] for row in reported])
    assert {row["state"] for row in reported} == {"done"}
    assert np.abs(probabilities - measured["probabilities"]).max() < ROUNDING
    assert np.array([float(row["ood_score"]) for row in reported]) == pytest.approx(measured["ood_score"], rel=ROUNDING)

    truth = evaluate.read_truth(held_out, "test")
    expected = scoring.score(measured["probabilities"], truth)
    right = [row["diagnosis"] == entry.diagnosis for row, entry in zip(reported, held_out.entries, strict=True)]
    assert np.mean(right) == expected.accuracy > 0.5
    assert scoring.score(probabilities, truth).recall == expected.recall
