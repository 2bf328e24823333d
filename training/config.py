"""What a configuration may say. The configurations themselves are modules of ``training.configs``."""

import importlib
import pkgutil
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Config:
    """One training run, from start weights to logits."""

    name: str
    size: int
    """Side of the square input, in pixels."""
    start: str
    """A key of ``training.model.START_WEIGHTS``."""
    head: Head
    seed: int = 1
    augmentation: str = "none"
    """For the card, in words."""
    description: str = field(default="", kw_only=True)
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
