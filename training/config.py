"""What a configuration may say. The configurations themselves are modules of ``training.configs``."""

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Literal

from training import configs


@dataclass(frozen=True)
class Head:
    """Training of the last layer alone, on cached features of the frozen backbone."""

    epochs: int = 200
    """At most; training stops when val loss has not improved for ``patience`` epochs."""
    patience: int = 10
    batch: int = 128
    rate: float = 1e-3
    penalty: float = 0.05
    """Of the squared weights, for features of unit variance."""
    class_balance: float = 0.0
    """Exponent of the inverse class frequency in the loss: 0 none, 0.5 square root, 1 full."""
    plateau_patience: int | None = None
    """Epochs without a better val loss after which the rate falls to a tenth; never when None."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one input size."""

    size: int
    epochs: int


@dataclass(frozen=True)
class Finetune:
    """Training of the whole network, small images first."""

    phases: tuple[Phase, ...]
    head: Head | None = None
    """Training of the head alone, on a frozen backbone, before the first phase and at its size."""
    batch: int = 32
    rate: float = 1e-3
    """Peak, reached after ``warmup_epochs``; falls over all phases to ``final_rate``."""
    final_rate: float = 1e-5
    fall: Literal["cosine", "exponential"] = "cosine"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    dropout: float = 0.3
    class_balance: float = 0.5
    """How far sampling goes from the classes' frequencies (0) to all alike (1)."""
    average_decay: float = 0.998
    """Per step, of the moving average of all weights, which is what is evaluated and shipped."""
    sharp_share: float = 0.3
    """How often an image is drawn from a sharper source, where it has one; alike for every class."""
    further: tuple[str, ...] = ()
    """Sources of ``training.datasets.FURTHER`` that are drawn beside HAM10000's images."""
    through: int | None = None
    """Side in pixels that all images are brought to before they are brought to the phase's, so that no sharpness tells
    the source; with ``further``, that of its archives. HAM10000's images then come from the reference alone."""
    mixup: float = 0.0
    """Of half of all batches, each image is blended with another by a share from Beta(mixup, mixup), its target
    likewise (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018)."""
    epoch_images: int | None = None
    """Images an epoch; as many as there are for training when None."""
    augmentation: Literal["rich", "framed", "published"] = "rich"
    """A key of ``training.augment.KINDS``."""
    teachers: tuple[str, ...] = ()
    """Runs of the same size as all phases; the mean of their probabilities for each augmented image is part of its
    target (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; the same view for all as in
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022)."""
    teachers_share: float = 0.7
    """How much of the target is the teachers'; the rest is the truth."""


@dataclass(frozen=True)
class Config:
    """One training run, from start weights to logits: of the head alone, or of the whole network."""

    name: str
    size: int
    """Side of the square input of the finished network, in pixels."""
    start: str
    """A key of ``training.model.START_WEIGHTS``."""
    plan: Head | Finetune
    split: Literal["lesion", "image"] = "lesion"
    """``image`` draws images at random and so shows lesions of the test images while training: for comparison only."""
    continues: str | None = None
    """The run whose last weights this one goes on from, with a rate that rises again (Loshchilov and Hutter, "SGDR:
    Stochastic Gradient Descent with Warm Restarts", ICLR 2017); ``start`` is what that run began with."""
    backbone: str = "efficientnetb1"
    """A key of ``training.model.BACKBONES``; only the default ships."""
    seed: int = 1
    augmentation: str = "none"
    """For the card, in words."""
    description: str = ""
    """For the card: what a reader of it should know about the recipe."""


class UnknownConfig(Exception):
    """Raised when no configuration has the name asked for."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load(name: str) -> Config:
    """The configuration ``training/configs/<name>.py``. Raises UnknownConfig."""
    if name not in names():
        raise UnknownConfig(f"No configuration {name!r}; there are {', '.join(names())}.")
    config: Config = importlib.import_module(f"training.configs.{name}").CONFIG
    return config
