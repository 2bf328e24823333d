"""Learners run training steps and give access to the weights and to the state for an exact resume.

``make_learner`` chooses: PyTorch's own modules where Keras runs on PyTorch (``training.torch_learner``), else Keras.
"""

from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import Finetune

Weights = list[NDArray[Any]]
NO_DECAY = ("gamma", "beta", "bias")
"""The names of the weights without weight decay."""


class Learner(Protocol):
    """A network in training."""

    def step(self, images: NDArray[np.uint8], targets: NDArray[np.floating], rate: float) -> tuple[float, float]:
        """Train on a batch ``(n, s, s, 3)`` with targets ``(n, 7)``; return loss and accuracy before the update."""

    def weights(self) -> Weights:
        """Return copies of all weights, in the order and the shapes of Keras's ``get_weights``."""

    def load(self, weights: Weights) -> None:
        """Replace all weights by ``weights``."""

    def optimizer(self) -> Weights:
        """Return the optimizer's variables."""

    def seeds(self) -> Weights:
        """Return the random state of the network's dropout layers."""

    def restore(self, optimizer: Weights, seeds: Weights) -> None:
        """Load the state from another learner of the same class. Raises ValueError for the state of another class."""


def make_learner(network: Any, plan: Finetune, seed: int, *, precision: str = "float32") -> Learner:
    """Return the learner for the Keras ``network`` and Keras's backend.

    ``precision`` may be ``mixed_bfloat16``, for a GPU. ``KerasLearner`` ignores it, since Keras sets it by a policy.
    """
    if keras.backend.backend() != "torch":
        return KerasLearner(network, plan)
    from training import torch_learner  # imported here, because the other backends do not need PyTorch

    return torch_learner.TorchLearner(network, plan, seed, mixed=precision != "float32")


class KerasLearner:
    """A Learner that uses Keras's own training step, on any backend."""

    def __init__(self, network: Any, plan: Finetune) -> None:
        optimizer = keras.optimizers.AdamW(plan.rate, weight_decay=plan.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=list(NO_DECAY))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing)
        network.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        network.optimizer.build(network.trainable_variables)
        self._network = network

    def step(self, images: NDArray[np.uint8], targets: NDArray[np.floating], rate: float) -> tuple[float, float]:
        self._network.optimizer.learning_rate = rate
        self._network.reset_metrics()
        loss, accuracy = map(float, self._network.train_on_batch(images, targets))
        return loss, accuracy

    def weights(self) -> Weights:
        return [np.array(weight) for weight in self._network.get_weights()]

    def load(self, weights: Weights) -> None:
        self._network.set_weights(weights)

    def optimizer(self) -> Weights:
        return [keras.ops.convert_to_numpy(variable) for variable in self._network.optimizer.variables]

    def seeds(self) -> Weights:
        return [keras.ops.convert_to_numpy(variable) for variable in self._random()]

    def restore(self, optimizer: Weights, seeds: Weights) -> None:
        for variable, value in zip(self._network.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        for variable, value in zip(self._random(), seeds, strict=True):
            variable.assign(value)

    def _random(self) -> list[Any]:
        """Return the state of the random layers. It is not among the weights."""
        weights = {id(variable) for variable in self._network.weights}
        return [variable for variable in self._network.non_trainable_variables if id(variable) not in weights]
