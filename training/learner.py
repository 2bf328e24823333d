"""What trains a network: steps, weights in and out, and the state that an exact resume needs.

``of`` chooses: PyTorch's own modules where Keras runs on PyTorch (see ``training.torch_learner``), else Keras itself.
"""

from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import Finetune

Weights = list[NDArray[Any]]
NO_DECAY = ("gamma", "beta", "bias")
"""Names of the weights that do not decay."""


class Learner(Protocol):
    """A network in training."""

    def step(self, images: NDArray[np.uint8], targets: NDArray[np.floating], rate: float) -> tuple[float, float]:
        """Learn from a batch ``(n, s, s, 3)`` with targets ``(n, 7)``; return loss and accuracy before the step."""

    def weights(self) -> Weights:
        """Copies of all weights, in the order and the shapes of Keras's ``get_weights``."""

    def load(self, weights: Weights) -> None:
        """Take ``weights``."""

    def optimizer(self) -> Weights:
        """The optimizer's variables."""

    def seeds(self) -> Weights:
        """The state of the network's random layers."""

    def restore(self, optimizer: Weights, seeds: Weights) -> None:
        """Take the state that another learner of the same kind gave. Raises ValueError for another kind's."""


def of(network: Any, plan: Finetune, seed: int, *, precision: str = "float32") -> Learner:
    """The learner of the Keras ``network`` under Keras's backend.

    ``precision`` may be ``mixed_bfloat16``, for a GPU; on Keras the network was built with that policy.
    """
    if keras.backend.backend() != "torch":
        return KerasLearner(network, plan)
    from training import torch_learner  # here, because PyTorch is no dependency of the other backends

    return torch_learner.TorchLearner(network, plan, seed, mixed=precision != "float32")


class KerasLearner:
    """A Learner by Keras's own training step, on any backend."""

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
        """The state of the random layers, which is no weight."""
        weights = {id(variable) for variable in self._network.weights}
        return [variable for variable in self._network.non_trainable_variables if id(variable) not in weights]
