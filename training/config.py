"""The fields of a training configuration. The configurations themselves are modules of ``training.configs``."""

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Literal

from training import configs


@dataclass(frozen=True)
class Head:
    """Training of only the last layer, on cached features of the frozen backbone."""

    epochs: int = 200
    """The greatest number of epochs. Training stops earlier when val loss has not improved for ``patience`` epochs."""
    patience: int = 10
    batch: int = 128
    rate: float = 1e-3
    penalty: float = 0.05
    """The factor of the L2 penalty, for features of unit variance."""
    class_balance: float = 0.0
    """Exponent of the inverse class frequency in the loss: 0 none, 0.5 square root, 1 full."""
    plateau_patience: int | None = None
    """The learning rate is divided by ten after this many epochs without a better val loss; never when None."""


@dataclass(frozen=True)
class Phase:
    """A number of epochs at one input size in pixels."""

    size: int
    epochs: int


@dataclass(frozen=True)
class Finetune:
    """Training of the whole network (fine-tuning), first on small images."""

    phases: tuple[Phase, ...]
    head: Head | None = None
    """Training of only the head before the first phase, at the size of that phase."""
    batch: int = 32
    rate: float = 1e-3
    """The peak learning rate. It is reached after ``warmup_epochs`` and falls to ``final_rate`` over all phases."""
    final_rate: float = 1e-5
    fall: Literal["cosine", "exponential"] = "cosine"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    dropout: float = 0.3
    class_balance: float = 0.5
    """The sampling of classes: 0 by their frequency, 1 all equally often."""
    average_decay: float = 0.998
    """The decay per step of the weights' moving average, which is evaluated and exported."""
    sharp_share: float = 0.3
    """The share of draws from a sharper source, for images that have one; the same for every class."""
    further: tuple[str, ...] = ()
    """Sources of ``training.datasets.FURTHER`` that are used in addition to HAM10000."""
    through: int | None = None
    """A side in pixels to which all images are reduced before they are scaled to the phase's size, so that sharpness
    does not reveal the source; with ``further``, the side of its archives. HAM10000 is then read from the reference."""
    mixup: float = 0.0
    """The parameter of mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018): in half of the
    batches, each image and its target are blended with another by a share from Beta(mixup, mixup). 0 turns it off."""
    epoch_images: int | None = None
    """Images per epoch; None means as many as there are training images."""
    augmentation: Literal["rich", "framed", "published"] = "rich"
    """A key of ``training.augment.KINDS``."""
    teachers: tuple[str, ...] = ()
    """Finished runs. The mean of their probabilities for an augmented image is part of its target (Hinton, Vinyals and
    Dean, "Distilling the Knowledge in a Neural Network", 2015). Each sees the same crop at its own size, as in Beyer et
    al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022."""
    teachers_share: float = 0.7
    """The share of the teachers in the target; the rest is the true diagnosis."""


@dataclass(frozen=True)
class Config:
    """One training run, of the head or of the whole network."""

    name: str
    size: int
    """The side of the finished network's square input, in pixels."""
    start: str
    """A key of ``training.model.START_WEIGHTS``."""
    plan: Head | Finetune
    split: Literal["lesion", "image"] = "lesion"
    """``image`` splits at random by image, so training sees lesions of the test split. It is for comparison only."""
    continues: str | None = None
    """The run whose last weights this run starts from. The learning rate rises again (Loshchilov and Hutter, "SGDR:
    Stochastic Gradient Descent with Warm Restarts", ICLR 2017). ``start`` names the start weights of that run."""
    backbone: str = "efficientnetb1"
    """A key of ``training.model.BACKBONES``; only the default can be exported."""
    seed: int = 1
    augmentation: str = "none"
    """A description of the augmentation for the card."""
    description: str = ""
    """A description of the recipe for the card."""


class UnknownConfig(Exception):
    """Raised when no configuration has the given name."""


def list_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load(name: str) -> Config:
    """Return the configuration in ``training/configs/<name>.py``. Raises UnknownConfig."""
    if name not in list_names():
        raise UnknownConfig(f"No configuration {name!r}; there are {', '.join(list_names())}.")
    config: Config = importlib.import_module(f"training.configs.{name}").CONFIG
    return config
