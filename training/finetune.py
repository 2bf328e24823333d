"""Trains the whole network: small images first, a moving average of the weights, exact resume.

Read ``train`` from top to bottom. The moving average of the weights, with the batch norm statistics, is evaluated after
each epoch, and is exported in the end. It is evaluated as the ONNX graph that a worker would run.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from dermq import scoring
from training import batches, evaluate, head, model, onnx_graph, runs, teachers
from training import checkpoint as checkpoints
from training import learner as learners
from training import manifest as manifests
from training.checkpoint import Checkpoint, Place
from training.config import Config, Finetune, Head
from training.learner import Learner, Weights

CHECKPOINT_SECONDS = 300.0
AVERAGE_EVERY = 4
"""The number of steps between updates of the moving average. An update is slow, because it copies every weight."""


def train(
    config: Config,
    manifest: manifests.Manifest,
    data: Path,
    folder: Path,
    *,
    processes: int = 0,
    precision: str = "float32",
    stop: Callable[[Place], bool] = lambda place: False,
    build: Callable[..., Any] = model.build_network,
) -> bool:
    """Train ``config`` in ``folder`` to its end and return True; return False when ``stop`` is true after a step.

    Resumes from the checkpoint in ``folder``, if there is one. After each epoch the folder holds the averaged weights,
    so any epoch can be exported. ``build`` creates the network. ``precision`` may be ``mixed_bfloat16``, which is fast
    on a GPU and, by ``training.depthwise``, on some processors; weights, checkpoints and evaluations stay float32.
    Raises runs.Diverged when the loss is not finite.
    """
    plan = _read_plan(config)
    keras.utils.set_random_seed(config.seed)
    if keras.backend.backend() != "torch":
        keras.config.set_dtype_policy(precision)
    state = checkpoints.load(folder)
    place, epochs = (state.place, state.epochs) if state else (Place(), [])
    taught_by = [teachers.read(folder.parent / name, build) for name in plan.teachers]
    with batches.make_executor(processes) as executor:
        while place.epoch < sum(phase.epochs for phase in plan.phases):
            size = find_phase_size(plan, place.epoch)
            sides = (size, *(teacher.size for teacher in taught_by))
            streams = {side: _make_stream(config, plan, manifest, side, data) for side in sides}
            network = build(size, config.start, dropout=plan.dropout, backbone=config.backbone)
            if state is None and config.continues:
                network.load_weights(runs.find_weights(folder.parent / config.continues))
            if state is None and plan.head:
                _train_head(network, config, plan.head, size, manifest, data, folder)
            learner = learners.make_learner(network, plan, config.seed, precision=precision)
            average = restore(learner, state)
            end = place.epoch + _count_epochs_left(plan, place.epoch)
            while place.epoch < end:
                done = _train_epoch(learner, average, streams, plan, taught_by, place, executor, folder, epochs, stop)
                if not done:
                    return False
                epochs.append(
                    _close_epoch(config, network, average, streams[size], plan, place, manifest, data, folder)
                )
                place = Place(epoch=place.epoch + 1)
                state = capture(learner, average, place, epochs)
                checkpoints.save(folder, state)
                runs.write_epochs(folder, epochs)
                runs.write_events(folder, epochs[-1])
                _record(config, manifest, size, epochs, folder)
    return True


def _train_head(
    network: Any, config: Config, plan: Head, size: int, manifest: manifests.Manifest, data: Path, folder: Path
) -> None:
    """Train only the head of ``network``, and write the table of its epochs to the folder ``head``."""
    part = folder / "head"
    part.mkdir(exist_ok=True)
    epochs = head.train(network, config.seed, plan, size, manifest, data)
    runs.write_epochs(part, epochs)
    runs.write_events(part, *epochs)


def _train_epoch(
    learner: Learner,
    average: Weights,
    streams: dict[int, batches.Stream],
    plan: Finetune,
    taught_by: list[teachers.Teacher],
    place: Place,
    executor: Any,
    folder: Path,
    epochs: list[dict[str, float]],
    stop: Callable[[Place], bool],
) -> bool:
    """Train the rest of the epoch at ``place`` and update ``place``; return False when ``stop`` ended it.

    ``streams`` are by size, the learner's own first.
    """
    size, stream = next(iter(streams.items()))
    saved = asked = time.monotonic()
    bar = tqdm(total=stream.steps, initial=place.step, desc=f"epoch {place.epoch}", mininterval=1.0, disable=None)
    for views, known in teachers.run_streams(streams, place.epoch, place.step, executor):
        place.waiting_seconds += time.monotonic() - asked
        rate = compute_learning_rate(plan, place.epoch + place.step / stream.steps)
        targets = teachers.blend(views, known, taught_by, plan.teachers_share)
        loss, accuracy = learner.step(views[size], targets, rate)
        if not math.isfinite(loss):
            raise runs.Diverged(f"The loss is {loss} in epoch {place.epoch}, step {place.step}, at rate {rate:g}.")
        place.step += 1
        place.loss_sum += loss
        place.accuracy_sum += accuracy
        if place.step % AVERAGE_EVERY == 0:
            _average(average, learner, plan, place.epoch * stream.steps + place.step)
        bar.update()
        bar.set_postfix(loss=f"{place.loss_sum / place.step:.4f}", rate=f"{rate:.2e}")
        place.seconds += time.monotonic() - asked
        asked = time.monotonic()
        stopped = stop(place)
        if stopped or asked - saved > CHECKPOINT_SECONDS:
            checkpoints.save(folder, capture(learner, average, place, epochs))
            _log(f"epoch {place.epoch} step {place.step}/{stream.steps} loss {place.loss_sum / place.step:.4f}")
            saved = time.monotonic()
        if stopped:
            return False
    bar.close()
    return True


def compute_learning_rate(plan: Finetune, epochs_done: float) -> float:
    """Return the rate after ``epochs_done`` epochs: a linear warm-up, then a cosine or exponential fall."""
    if epochs_done < plan.warmup_epochs:
        return plan.rate * max(epochs_done, 0.01) / plan.warmup_epochs
    falling_epochs = sum(phase.epochs for phase in plan.phases) - plan.warmup_epochs
    progress = (epochs_done - plan.warmup_epochs) / falling_epochs if falling_epochs > 0 else 1.0
    if plan.fall == "exponential":
        return float(plan.rate * (plan.final_rate / plan.rate) ** progress)
    return plan.final_rate + (plan.rate - plan.final_rate) * (1 + math.cos(math.pi * progress)) / 2


def find_phase_size(plan: Finetune, epoch: int) -> int:
    """Return the input size in ``epoch``; after the last epoch, return the last size."""
    for phase in plan.phases:
        if epoch < phase.epochs:
            return phase.size
        epoch -= phase.epochs
    return plan.phases[-1].size


def capture(learner: Learner, average: Weights, place: Place, epochs: list[dict[str, float]]) -> Checkpoint:
    """Return a checkpoint with copies of the state of ``learner``, which ``restore`` can load."""
    return Checkpoint(
        place=place,
        epochs=epochs,
        average=average,
        weights=learner.weights(),
        optimizer=learner.optimizer(),
        seeds=learner.seeds(),
    )


def restore(learner: Learner, state: Checkpoint | None) -> Weights:
    """Load ``state`` into ``learner`` and return the moving average; without a state, it starts from the weights."""
    if state is None:
        return learner.weights()
    learner.load(state.weights)
    learner.restore(state.optimizer, state.seeds)
    return state.average


def _average(average: Weights, learner: Learner, plan: Finetune, steps_done: int) -> None:
    """Move ``average`` towards the weights; faster at the start, when it holds only the start weights."""
    decay = min(plan.average_decay, (1 + steps_done) / (10 + steps_done)) ** AVERAGE_EVERY
    for kept, weight in zip(average, learner.weights(), strict=True):
        if np.issubdtype(kept.dtype, np.floating):  # the normalisation's count of images is an integer
            kept += (1 - decay) * (weight - kept)


def _close_epoch(
    config: Config,
    network: Any,
    average: Weights,
    stream: batches.Stream,
    plan: Finetune,
    place: Place,
    manifest: manifests.Manifest,
    data: Path,
    folder: Path,
) -> dict[str, float]:
    """Score the moving average on ``val``, save it, and return the row of the epoch for the table."""
    current = network.get_weights()
    network.set_weights(average)
    size = int(network.input.shape[1])
    graph = onnx_graph.build(model.name_logits(network)).SerializeToString()
    network.save_weights(folder / runs.WEIGHTS)
    network.set_weights(current)  # KerasLearner trains this network, so it needs its own weights again
    seen = evaluate.predict_val_by_source(graph, size, manifest, data)
    probabilities, truth = seen[manifest.reference]
    scored = scoring.score(probabilities, truth)
    losses = {source: scoring.measure_log_loss(*said) for source, said in seen.items()}
    row = {
        "epoch": place.epoch,
        "size": size,
        "loss": place.loss_sum / stream.steps,
        "accuracy": place.accuracy_sum / stream.steps,
        "val_loss": losses[manifest.reference],
        "val_loss_mean": float(np.mean(list(losses.values()))),
        **{f"val_loss/{source}": loss for source, loss in losses.items() if source != manifest.reference},
        "val_accuracy": scored.accuracy,
        "val_balanced_accuracy": scored.balanced_accuracy,
        "rate": compute_learning_rate(plan, place.epoch + 1),
        "seconds": place.seconds,
        "waiting": place.waiting_seconds / place.seconds,
    }
    _log(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return row


def _record(
    config: Config, manifest: manifests.Manifest, size: int, epochs: list[dict[str, float]], folder: Path
) -> None:
    seconds = sum(epoch["seconds"] for epoch in epochs)
    further = {source: len(manifest.of(source)) for source in _read_plan(config).further}
    runs.record(folder, config, manifest.sha256, seconds, size=size, epochs=len(epochs), further=further)


def _make_stream(config: Config, plan: Finetune, manifest: manifests.Manifest, size: int, data: Path) -> batches.Stream:
    return batches.make_stream(
        manifest,
        size,
        data,
        batch=plan.batch,
        images=plan.epoch_images,
        class_balance=plan.class_balance,
        sharp_share=plan.sharp_share,
        seed=config.seed,
        augmentation=plan.augmentation,
        mixup=plan.mixup,
        further=plan.further,
        through=plan.through,
    )


def _read_plan(config: Config) -> Finetune:
    if not isinstance(config.plan, Finetune):
        raise TypeError(f"The configuration {config.name} trains only a head, not the whole network.")
    return config.plan


def _count_epochs_left(plan: Finetune, epoch: int) -> int:
    """Return how many epochs of the phase of ``epoch`` are left, including ``epoch`` itself."""
    end = 0
    for phase in plan.phases:
        end += phase.epochs
        if epoch < end:
            break
    return end - epoch


def _log(text: str) -> None:
    tqdm.write(f"{time.strftime('%H:%M:%S')} {text}")
