"""Trains only the last layer, on cached features of the frozen backbone.

ONNX Runtime computes the features, because on a CPU it takes a third of the time of Keras.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermq import taxonomy
from training import graph_outputs, model, onnx_graph, onnx_run, pixels, runs
from training import manifest as manifests
from training.config import Head

Track = Callable[[Iterable[Any]], Iterable[Any]]


def train(
    network: Any,
    seed: int,
    plan: Head,
    size: int,
    manifest: manifests.Manifest,
    data: Path,
    track: Track = iter,
) -> list[dict[str, float]]:
    """Fit the last layer of ``network`` in place by ``plan``; return the table of epochs.

    Pixels and features are cached under ``data``, so runs with another split or another head reuse them. The weights of
    the epoch with the lowest val loss are kept. Raises runs.Diverged when the loss is not finite.
    """
    entries = manifest.of(manifest.reference)
    features = _compute_features(network, size, manifest, data, track)
    truth = np.array([taxonomy.CODES.index(entry.diagnosis) for entry in entries])
    splits = np.array([entry.split for entry in entries])
    mean, deviation = features[splits == "train"].mean(axis=0), features[splits == "train"].std(axis=0) + 1e-8
    scaled = (features - mean) / deviation
    keras.utils.set_random_seed(seed)
    parts = {split: (scaled[splits == split], truth[splits == split]) for split in ("train", "val")}
    kernel, bias, epochs = fit(parts["train"], parts["val"], plan)
    kernel = kernel / deviation[:, None]
    network.get_layer(graph_outputs.LOGITS).set_weights([kernel, bias - mean @ kernel])
    return epochs


def fit(
    train: tuple[NDArray[np.float32], NDArray[np.int64]], val: tuple[NDArray[np.float32], NDArray[np.int64]], plan: Head
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[dict[str, float]]]:
    """Fit a linear softmax classifier of features; return its kernel, its bias and the table of epochs."""
    inputs = keras.Input(train[0].shape[1:])
    # Zeros, because random start values in directions that the features do not use would never be corrected.
    layer = keras.layers.Dense(
        len(taxonomy.CODES), kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(plan.penalty)
    )
    classifier = keras.Model(inputs, layer(inputs))
    classifier.compile(
        keras.optimizers.Adam(plan.rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=plan.patience, restore_best_weights=True)
    epochs: list[dict[str, float]] = []
    bar = tqdm(total=plan.epochs, desc="head", unit="epoch", mininterval=1.0, disable=None)

    def close_epoch(epoch: int, logs: dict[str, float]) -> None:
        epochs.append({"epoch": epoch, **logs, "rate": float(classifier.optimizer.learning_rate)})
        bar.set_postfix(loss=f"{logs['loss']:.4f}", rate=f"{epochs[-1]['rate']:.2e}", refresh=False)
        bar.update()

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=close_epoch), stop, keras.callbacks.TerminateOnNaN()]
    if plan.plateau_patience is not None:
        callbacks.append(keras.callbacks.ReduceLROnPlateau("val_loss", patience=plan.plateau_patience))
    weights = dict(enumerate(compute_class_weights(train[1], plan.class_balance)))
    with bar:
        classifier.fit(
            *train, validation_data=val, epochs=plan.epochs, batch_size=plan.batch, class_weight=weights,
            callbacks=callbacks, verbose=0,
        )  # fmt: skip
    kernel, bias = classifier.get_weights()
    if not all(np.isfinite(values).all() for values in (kernel, bias, [epoch["loss"] for epoch in epochs])):
        raise runs.Diverged(f"The loss of the head is not finite after {len(epochs)} epochs, at rate {plan.rate:g}.")
    return kernel, bias, epochs


def compute_class_weights(truth: NDArray[np.integer], balance: float) -> NDArray[np.float64]:
    """Return the class weights ``(7,)`` of the loss: inverse frequency to the power ``balance``, with mean 1."""
    counts = np.maximum(np.bincount(truth, minlength=len(taxonomy.CODES)), 1)
    weights = (counts.sum() / counts) ** balance
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), np.float64)


def _compute_features(
    network: Any, size: int, manifest: manifests.Manifest, data: Path, track: Track
) -> NDArray[np.float32]:
    """Return the features of every image. The cache file in ``data`` is named by the weights and the pixels."""
    cut = model.cut_to_features(network)
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in cut.get_weights())).hexdigest()
    source = pixels.find_path(manifest, manifest.reference, size, data)
    path = source.with_name(f"features-{weights[:12]}-{source.name}")
    if not path.exists():
        images = pixels.load(manifest, manifest.reference, size, data, track)
        found = onnx_run.run(onnx_graph.build(cut).SerializeToString(), images, track=track)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, found[graph_outputs.FEATURES])
        partial.rename(path)
    features: NDArray[np.float32] = np.load(path)
    return features
