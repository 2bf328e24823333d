"""Teachers: finished runs whose probabilities are part of the targets of another run (knowledge distillation).

A teacher may need another size than the run that it teaches. It then sees the same images with the same crop, colours
and mixup at its own size: a batch is a pure function of the seed, the epoch and the step, and so it can be made again.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import batches, calibrate, graph_outputs, model, onnx_graph, onnx_run, runs

Views = dict[int, NDArray[np.uint8]]
"""One batch of images ``(n, s, s, 3)`` by their side ``s`` in pixels."""


@dataclass(frozen=True)
class Teacher:
    """A finished run."""

    size: int
    """The side of its input in pixels."""
    predict: Callable[[NDArray[np.uint8]], NDArray[np.floating]]
    """A function from images ``(n, size, size, 3)`` to probabilities ``(n, 7)``."""


def read(folder: Path, build: Callable[..., Any] = model.build_network) -> Teacher:
    """Return the network of the run in ``folder`` as a teacher. Raises runs.Unfinished."""
    run = runs.read_record(folder)
    network = build(run["size"], "none", backbone=run["config"].get("backbone", model.SHIPPED))
    network.load_weights(runs.find_weights(folder))
    session = onnx_run.open_session(onnx_graph.build(model.name_logits(network)).SerializeToString())
    return Teacher(
        run["size"], lambda images: calibrate.apply_softmax(onnx_run.run(session, images)[graph_outputs.LOGITS])
    )


def run_streams(
    streams: dict[int, batches.Stream], epoch: int, first_step: int, executor: Executor
) -> Iterator[tuple[Views, NDArray[np.float64]]]:
    """Yield the views of each batch by size, and its targets. The streams must differ in nothing but the size."""
    running = [stream.run(epoch, first_step, executor) for stream in streams.values()]
    for same in zip(*running, strict=True):
        yield dict(zip(streams, (images for images, _ in same), strict=True)), same[0][1]


def blend(views: Views, known: NDArray[np.float64], teachers: list[Teacher], share: float) -> NDArray[np.float64]:
    """Return the targets ``(n, 7)``: ``known``, or its mean with the teachers' probabilities, which weigh ``share``."""
    if not teachers:
        return known
    taught: NDArray[np.float64] = np.mean([teacher.predict(views[teacher.size]) for teacher in teachers], axis=0)
    return (1 - share) * known + share * taught
