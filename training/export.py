"""Exports a run as a bundle: decision, temperature, out-of-distribution score, model files, golden inputs, card."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermq import bundles, recipes, scoring, taxonomy
from training import (
    calibrate,
    datasets,
    decision,
    evaluate,
    graph_outputs,
    model,
    onnx_graph,
    onnx_run,
    pictures,
    strangeness,
)
from training import manifest as manifests
from training.evaluate import Track

BUNDLE_LICENCE = "{licences}: trained on {titles}, so cite it and make no commercial use. Start weights: Apache-2.0."
LIMITS = (
    "Research only, no clinical or diagnostic value. HAM10000 comes from two sites (Vienna and Queensland) and shows "
    "almost only lightly pigmented skin and seven kinds of pigmented lesions; other skin tones, devices, body sites "
    "and diagnoses are untested, and anything else is still given one of the seven. Small classes (df, vasc) are "
    "measured on few images. Figures were measured on JPEG files of 200 x 150 pixels."
)
SPLITS = {
    "lesion": "disjoint by lesion, stratified by diagnosis; choices and temperature on val, test measured on export",
    "image": "random by image, as published: lesions stand on both sides, so the test figures are too good; "
    "for comparison only",
}


def export(
    network: Any,
    record: dict[str, Any],
    manifest: manifests.Manifest,
    data: Path,
    folder: Path,
    *,
    name: str,
    version: str,
    track: Track = iter,
) -> bundles.Bundle:
    """Write the bundle of ``network`` to ``folder``, with figures measured on the exported ONNX graph.

    ``record`` is the run's record. **Changes ``network``**: decision and temperature are folded into its last layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size, further = int(network.input.shape[1]), record.get("further", {})
    plain = onnx_graph.build(model.split_parts(network)).SerializeToString()
    decided, temperature = _calibrate(plain, size, record["config"]["plan"], manifest, data, track)
    seen = evaluate.predict(plain, size, manifest, "train", data, track)[graph_outputs.MIDDLE]
    shift = np.array([decided.shift[code] for code in taxonomy.CODES])
    shipped = model.ship(network, shift=shift, temperature=temperature, whitening=strangeness.fit_whitening(seen))
    write_models(shipped, folder)
    predicted = {split: evaluate.predict(folder / bundles.ONNX_MODEL, size, manifest, split, data, track)
                 for split in ("val", "test")}  # fmt: skip
    write_golden(folder, size)
    scored = {split: scoring.score(outputs[graph_outputs.PROBABILITIES], evaluate.read_truth(manifest, split))
              for split, outputs in predicted.items()}  # fmt: skip
    card = bundles.Card(
        name=name,
        version=version,
        description=f"The seven HAM10000 diagnoses. {record['config']['description']}",
        classes=taxonomy.CODES,
        architecture=model.ARCHITECTURE,
        input_size=size,
        recipe=bundles.Recipe(name=recipes.RECIPE, version=recipes.RECIPE_VERSION),
        temperature=temperature,
        decision=decided,
        out_of_distribution=_measure_out_of_distribution(folder / bundles.ONNX_MODEL, size, predicted),
        metrics=scored,
        start_weights=_describe_start_weights(record["config"]),
        config=record["config"],
        augmentation=record["config"]["augmentation"],
        training_data=_describe_training_data(manifest, record["config"].get("split", "lesion"), further),
        hardware=record["hardware"],
        packages=record["packages"],
        wall_seconds=record["wall_seconds"],
        git_commit=record["git_commit"],
        created_at=datetime.now(UTC).replace(microsecond=0),
        licence=BUNDLE_LICENCE.format(
            licences=_join_datasets(further, "licence", " and "), titles=_join_datasets(further, "title", " and ")
        ),
        citation=_join_datasets(further, "citation", " "),
        limits=LIMITS,
        files={file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in bundles.FILES},
    )
    return bundles.write_card(folder, card)


def write_models(shipped: Any, folder: Path) -> None:
    """Write ``shipped`` as a Keras file and as an ONNX file."""
    shipped.save(folder / bundles.KERAS_MODEL)
    (folder / bundles.ONNX_MODEL).write_bytes(onnx_graph.build(shipped).SerializeToString())


def write_golden(folder: Path, size: int) -> None:
    """Write the golden inputs with the outputs of the exported ONNX graph."""
    inputs = pictures.draw_golden(size)
    outputs = onnx_run.run(folder / bundles.ONNX_MODEL, inputs)
    np.savez_compressed(folder / bundles.GOLDEN, allow_pickle=False, pixels=inputs, **outputs)


def _calibrate(
    plain: bytes, size: int, plan: dict[str, Any], manifest: manifests.Manifest, data: Path, track: Track
) -> tuple[bundles.Decision, float]:
    """Choose the decision and then the temperature on val, and return both."""
    logits = evaluate.predict(plain, size, manifest, "val", data, track)[graph_outputs.LOGITS]
    truth = evaluate.read_truth(manifest, "val")
    lesions = [entry.lesion_id for entry in manifest.of(manifest.reference, "val")]
    odds = decision.measure_log_odds(evaluate.read_truth(manifest, "train"), plan["class_balance"])
    decided = decision.choose(logits, truth, lesions, odds)
    return decided, calibrate.fit_temperature(logits + decided.tau * odds, truth)


def _measure_out_of_distribution(
    path: Path, size: int, predicted: dict[str, dict[str, NDArray[np.float32]]]
) -> bundles.OutOfDistribution:
    threshold = calibrate.find_threshold(predicted["val"][graph_outputs.OOD_SCORE])
    strange = {
        kind: onnx_run.run(path, images)[graph_outputs.OOD_SCORE]
        for kind, images in pictures.draw_foreign(size).items()
    }
    lesions = predicted["test"][graph_outputs.OOD_SCORE]
    every = np.concatenate(list(strange.values()))
    parts = [
        f"{kind} ({len(scores)}) {scoring.measure_auroc(scores, lesions):.3f}, {(scores > threshold).mean():.0%} above"
        for kind, scores in strange.items()
    ]
    return bundles.OutOfDistribution(
        method=strangeness.METHOD,
        threshold=threshold,
        auroc=scoring.measure_auroc(every, lesions),
        measured_on=f"threshold: quantile {calibrate.THRESHOLD_QUANTILE:g} of val; AUROC: {len(lesions)} test images "
        f"against pictures without lesions from scikit-image and scikit-learn, and noise: {'; '.join(parts)}; "
        f"{(lesions > threshold).mean():.1%} of test above the threshold",
    )


def _describe_start_weights(config: dict[str, Any]) -> str:
    start = model.START_WEIGHTS[config["start"]]
    if continued := config.get("continues"):
        return f"the last weights of the configuration `{continued}`, which itself started from {start}"
    return start


def _describe_training_data(manifest: manifests.Manifest, split: str, further: dict[str, int]) -> bundles.TrainingData:
    """Describe the training data for the card; ``further`` counts the images of each further source."""
    splits = [entry.split for entry in manifest.of(manifest.reference)]
    before = [f"{datasets.FURTHER[source].title}, {source}, in pretraining alone" for source in further]
    return bundles.TrainingData(
        name="; ".join([f"{datasets.HAM10000.title}, {manifest.reference}", *before]),
        sha256=manifest.sha256,
        split=SPLITS[split],
        images={split: splits.count(split) for split in manifests.SPLITS} | further,
        citation=_join_datasets(further, "citation", " "),
        licence=_join_datasets(further, "licence", " and "),
    )


def _join_datasets(further: Iterable[str], what: str, between: str) -> str:
    """Join the field ``what`` of HAM10000 and of the ``further`` datasets, without repeats."""
    every = [datasets.HAM10000, *(datasets.FURTHER[source] for source in further)]
    return between.join(dict.fromkeys(getattr(dataset, what) for dataset in every))
