"""The commands of ``python -m training``, run from the repository's root; ``--help`` lists them."""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermq import bundles, errors
from training import assess, graph_outputs, runs
from training import config as configs
from training import manifest as manifests

DATA = Path("../shared/ham10000")
_REPORTED = (errors.DermqError, configs.UnknownConfig, runs.Diverged, runs.Taken, runs.Unfinished, FileNotFoundError)
FURTHER = {"isic2019": Path("../shared/isic2019/isic2019_not_ham_84x84.zip")}
SOURCES = ("full_200x150", "full_224x224_squashed", "part_224x224_cropped", "originals_600x450")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status. An error that the user can correct is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except _REPORTED as err:
        print(f"training: {err}", file=sys.stderr)
        return 1


def describe(options: argparse.Namespace) -> None:
    """Write tables and figures of the dataset, or with --model of the network, to out/."""
    from training import describe as descriptions

    if options.model:
        from training import model

        text = descriptions.write_model(model.ship(model.build_network(options.size, "none")), options.out / "model")
    else:
        text = descriptions.write_dataset(manifests.read_metadata(options.metadata), options.out / "dataset")
    print(text)


def prepare(options: argparse.Namespace) -> None:
    """Match the images with their metadata and write the manifest."""
    places: dict[str, list[Path]] = {}
    sources = options.source or [str(DATA / f"{name}.zip") for name in SOURCES]
    for source in sources + [f"{name}={path}" for name, path in FURTHER.items() if options.further]:
        name, _, path = source.rpartition("=")
        places.setdefault(name or Path(path).stem, []).append(Path(path))
    manifest = manifests.prepare(options.metadata, places, _track("matching"))
    manifests.write(manifest, _data(options))
    for source in manifest.places:
        splits = (manifests.PRETRAIN,) if source in manifest.further else manifests.SPLITS
        counts = ", ".join(f"{split} {len(manifest.of(source, split))}" for split in splits)
        print(f"{source}: {counts}")
    print(f"manifest {manifest.sha256}")


def augment(options: argparse.Namespace) -> None:
    """Write a sheet and an animation of augmented images to out/."""
    from training import gallery

    folder = options.out / "augmentation"
    manifest = manifests.read(_data(options))
    gallery.write(
        manifest, options.kind, _data(options) / "pixels", folder, frames=options.frames, track=_track("frames")
    )
    print(f"Written to {folder}, with the licence and the citation of the images.")


def train(options: argparse.Namespace) -> None:
    """Train a configuration in the folder of its run; with --resume, continue a stopped run exactly."""
    from training import checkpoint, finetune, head, model

    config = configs.load(options.config)
    manifest = _manifest(options, config.split)
    folder = options.runs / config.name
    pixels = _data(options) / "pixels"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(config.plan, configs.Finetune):
        if checkpoint.load(folder) and not options.resume:
            raise runs.Taken(f"{folder} holds a checkpoint. Continue the run with --resume, or remove the folder.")
        finetune.train(config, manifest, pixels, folder, processes=options.processes, precision=options.precision)
    else:
        started = time.monotonic()
        network = model.build_network(config.size, config.start, backbone=config.backbone)
        epochs = head.train(network, config.seed, config.plan, config.size, manifest, pixels, _track("features"))
        network.save_weights(folder / runs.WEIGHTS)
        runs.write_epochs(folder, epochs)
        runs.write_events(folder, *epochs)
        seconds = time.monotonic() - started
        runs.record(folder, config, manifest.sha256, seconds, size=config.size, epochs=len(epochs))
    print((folder / runs.EPOCHS_MARKDOWN).read_text())


def export(options: argparse.Namespace) -> None:
    """Export a run as a bundle."""
    from training import evaluate, model
    from training import export as exports

    config = runs.read_record(options.runs / options.run)["config"]
    if (backbone := config.get("backbone", model.SHIPPED)) != model.SHIPPED:
        raise errors.Rejected(
            "comparison_only", f"The run {options.run} trained {backbone}; only {model.SHIPPED} can become a bundle."
        )
    network, record, manifest = _trained(options)
    target = options.bundles / f"{options.name}-{options.version}"
    bundle = exports.export(
        network, record, manifest, _data(options) / "pixels", target,
        name=options.name, version=options.version, track=_track("predicting"),
    )  # fmt: skip
    if options.current:
        (options.bundles / "current").write_text(f"{target.name}\n", encoding="utf-8")
    for split, scored in bundle.card.metrics.items():
        print(evaluate.describe(split, scored))
    print(bundle.card.decision.model_dump_json(indent=2) if bundle.card.decision else "")
    print(bundle.card.out_of_distribution.model_dump_json(indent=2))


def soup(options: argparse.Namespace) -> None:
    """Average the weights of runs that continue one another, and store the mean as a run."""
    from training import model
    from training import soup as soups

    folders = [options.runs / run for run in options.run]
    folder = options.runs / f"soup-{'-'.join(options.run)}"
    folder.mkdir(parents=True, exist_ok=True)
    record = soups.record(folders, folder)
    network = model.build_network(record["size"], "none", backbone=record["config"].get("backbone", model.SHIPPED))
    soups.average(network, folders)
    network.save_weights(folder / runs.WEIGHTS)
    print(f"Written to {folder}. Before you use it, score it: `python -m training score {folder.name} --split val`.")


def curves(options: argparse.Namespace) -> None:
    """Draw the learning curves of a run, or of runs that continue one another, in the given order."""
    from training import figures

    tables = [runs.read_epochs(options.runs / run) for run in options.run]
    restarts = [sum(map(len, tables[:number])) for number in range(1, len(tables))]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"curves-{'-'.join(options.run)}.png"
    figures.draw_curves([epoch for table in tables for epoch in table], restarts, path)
    print(f"Written to {path}.")


def score(options: argparse.Namespace) -> None:
    """Score a run without exporting it, and print its figures with the published ones."""
    from training import calibrate, evaluate, model, onnx_graph, tables

    network, record, manifest = _trained(options)
    graph = onnx_graph.build(model.name_logits(network)).SerializeToString()
    data = _data(options) / "pixels"
    outputs = evaluate.predict(graph, record["size"], manifest, options.split, data, _track("predicting"))
    title = f"{options.run} on {options.split}"
    found = _write_assessment(
        calibrate.apply_softmax(outputs[graph_outputs.LOGITS]), 1.0, manifest, record["size"], title, options
    )
    print(tables.make_comparison({title: found}))


def judge(options: argparse.Namespace) -> None:
    """Compare runs and bundles on the val split of every source; the bundle to ship is chosen by this."""
    from training import judge as judges
    from training import model, onnx_graph

    found = {}
    for name in options.model:
        if (path := Path(name) / bundles.CARD).exists():
            bundle = bundles.read(path.parent)
            manifest = _manifest(options, bundle.card.config.get("split", "lesion"))
            found[path.parent.name] = judges.judge_bundle(bundle, manifest, _data(options) / "pixels")
        else:
            options.run = name
            network, record, manifest = _trained(options)
            graph = onnx_graph.build(model.name_logits(network)).SerializeToString()
            found[name] = judges.judge_graph(graph, record["size"], manifest, _data(options) / "pixels")
    print(judges.make_table(found))


def agreement(options: argparse.Namespace) -> None:
    """Measure how often a bundle keeps its diagnosis when images are compressed, blurred, rotated or mirrored."""
    from training import agreement as agreements

    bundle = bundles.read(options.bundle) if options.bundle else bundles.find_current(options.bundles)
    manifest = _manifest(options, bundle.card.config.get("split", "lesion"))
    graph, card = bundle.path / bundles.ONNX_MODEL, bundle.card
    found = agreements.measure(graph, card.input_size, manifest, recipe_version=card.recipe.version)
    print(agreements.make_table(found))


def evaluate(options: argparse.Namespace) -> int:
    """Score a bundle on a split, write the assessment to out/, and compare it with the card; return 1 if it differs."""
    from dermq import scoring
    from training import evaluate as evaluation

    bundle = bundles.read(options.bundle) if options.bundle else bundles.find_current(options.bundles)
    manifest = _manifest(options, bundle.card.config.get("split", "lesion"))
    other = options.source not in (None, manifest.reference)
    if other:
        manifest = manifest.with_reference(options.source)
    size, data = bundle.card.input_size, _data(options) / "pixels"
    path = bundle.path / bundles.ONNX_MODEL
    recipe_version, track = bundle.card.recipe.version, _track("predicting")
    outputs = evaluation.predict(path, size, manifest, options.split, data, track, recipe_version=recipe_version)
    probabilities = outputs[graph_outputs.PROBABILITIES]
    scored = scoring.score(probabilities, evaluation.read_truth(manifest, options.split))
    title = f"{bundle.name} {bundle.version} on {options.split}" + (f" of {options.source}" if other else "")
    _write_assessment(probabilities, bundle.card.temperature, manifest, size, title, options)
    print(evaluation.describe(options.split, scored))
    if other:
        return 0
    same = evaluation.compare(bundle.card, options.split, scored)
    print("The card states the same figures." if same else "The card states other figures.")
    return 0 if same else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of runs and cached data")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder for figures and tables")
    commands = parser.add_subparsers(required=True)
    command = _command(commands, describe)
    command.add_argument("--metadata", type=Path, default=DATA / "metadata.csv")
    command.add_argument("--model", action="store_true")
    command.add_argument("--size", type=int, default=160, help="the side of the network's input in pixels")
    command = _command(commands, prepare)
    command.add_argument("--metadata", type=Path, default=DATA / "metadata.csv")
    command.add_argument("--further", action="store_true", help=f"add {', '.join(FURTHER)} for training")
    command.add_argument("source", nargs="*", help="[name=]archive or folder; the first source must be complete")
    command = _command(commands, augment)
    command.add_argument("--kind", choices=("published", "rich"), default="published")
    command.add_argument("--frames", type=int, default=600, help="frames of the animation, at ten a second")
    command = _command(commands, train)
    command.add_argument("config", help=f"one of {', '.join(configs.list_names())}")
    command.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    command.add_argument("--processes", type=int, default=0, help="processes that compute batches; 0 means a thread")
    command.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16"),
        default="float32",
        help="mixed needs a GPU, or PyTorch and a processor with bfloat16",
    )
    command = _command(commands, export)
    command.add_argument("run", help="the name of a finished run")
    command.add_argument("--name", default="ham10000-b1")
    command.add_argument("--version", required=True)
    command.add_argument("--current", action="store_true", help="make it the current bundle")
    command = _command(commands, soup)
    command.add_argument("run", nargs="+", help="the names of runs with a finished epoch")
    command = _command(commands, curves)
    command.add_argument("run", nargs="+", help="the names of runs with a finished epoch")
    command = _command(commands, score)
    command.add_argument("run", help="the name of a run with a finished epoch")
    command.add_argument("--split", choices=manifests.SPLITS, default="test")
    command = _command(commands, judge)
    command.add_argument("model", nargs="+", help="the folder of a bundle, or the name of a run")
    command = _command(commands, agreement)
    command.add_argument("bundle", nargs="?", type=Path, help="a bundle's folder; the current one if left out")
    command = _command(commands, evaluate)
    command.add_argument("bundle", nargs="?", type=Path, help="a bundle's folder; the current one if left out")
    command.add_argument("--source", help="score another source than the reference, to see the effect of sharpness")
    command.add_argument("--split", choices=manifests.SPLITS, default="test")
    return parser


def _trained(options: argparse.Namespace) -> tuple[Any, dict[str, Any], manifests.Manifest]:
    """Return the run's network, its record, and the manifest with the split that it was trained on."""
    from training import model

    folder = options.runs / options.run
    record = runs.read_record(folder)
    network = model.build_network(record["size"], "none", backbone=record["config"].get("backbone", model.SHIPPED))
    network.load_weights(folder / runs.WEIGHTS)
    return network, record, _manifest(options, record["config"].get("split", "lesion"))


def _write_assessment(
    probabilities: NDArray[np.floating],
    temperature: float,
    manifest: manifests.Manifest,
    size: int,
    title: str,
    options: argparse.Namespace,
) -> assess.Assessment:
    """Assess the predictions of a split and write tables, figures and predictions to out/."""
    from training import pixels, tables

    entries = manifest.of(manifest.reference, options.split)
    folder = options.out / title.replace(" ", "-")
    images = pixels.load_split(manifest, manifest.reference, options.split, size, _data(options) / "pixels")
    found = assess.assess(probabilities, entries, temperature)
    tables.write(found, probabilities, entries, images, title, folder)
    print(f"The whole assessment is in {folder}.")
    return found


def _command(commands: Any, function: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(function.__name__, help=function.__doc__)
    parser.set_defaults(command=function)
    return parser


def _data(options: argparse.Namespace) -> Path:
    return Path(options.runs) / "data"


def _manifest(options: argparse.Namespace, split: str) -> manifests.Manifest:
    found = manifests.read(_data(options))
    return manifests.split_by_image(found) if split == "image" else found


def _track(what: str) -> Any:
    return partial(_show_progress, what)


def _show_progress(what: str, things: Iterable[Any]) -> Iterable[Any]:
    shown: Iterable[Any] = tqdm(things, desc=what, mininterval=1.0, disable=None)
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
