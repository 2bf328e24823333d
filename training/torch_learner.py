"""Training by PyTorch's own modules: the Keras network's weights go in, and come back to be exported."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training import torch_network
from training.config import Finetune
from training.learner import Weights


class TorchLearner:
    """A Learner by PyTorch: on the GPU if there is one, with ``mixed`` in bfloat16 where PyTorch holds it safe."""

    def __init__(self, network: Any, plan: Finetune, seed: int, *, mixed: bool = False) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._chance = torch.Generator(self._device).manual_seed(seed)
        self._network = torch_network.Network(network, self._chance).to(self._device)
        self._network.load(network.get_weights())
        self._smoothing, self._mixed = plan.label_smoothing, mixed
        decaying = [weight for weight in self._network.parameters() if weight.ndim > 1]
        others = [weight for weight in self._network.parameters() if weight.ndim == 1]
        groups = [{"params": decaying, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, eps=1e-7, fused=True)

    def step(self, images: NDArray[np.uint8], targets: NDArray[np.floating], rate: float) -> tuple[float, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        known = torch.as_tensor(targets, dtype=torch.float32, device=self._device)
        self._network.train()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            logits = self._network(torch.as_tensor(images, device=self._device)).float()
        loss = functional.cross_entropy(logits, known, label_smoothing=self._smoothing)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item(), (logits.argmax(1) == known.argmax(1)).float().mean().item()

    def weights(self) -> Weights:
        weights: Weights = self._network.weights()
        return weights

    def load(self, weights: Weights) -> None:
        self._network.load(weights)

    def optimizer(self) -> Weights:
        """Steps done, then the two moments of every weight."""
        states = [self._optimizer.state[weight] for weight in self._network.parameters()]
        if not all(states):
            return []
        return [states[0]["step"].cpu().numpy().copy()] + [
            state[moment].cpu().numpy().copy() for state in states for moment in ("exp_avg", "exp_avg_sq")
        ]

    def seeds(self) -> Weights:
        return [self._chance.get_state().numpy()]

    def restore(self, optimizer: Weights, seeds: Weights) -> None:
        (state,) = seeds
        self._chance.set_state(torch.from_numpy(state))
        if not optimizer:
            return
        steps, *moments = optimizer
        for weight, first, second in zip(self._network.parameters(), moments[::2], moments[1::2], strict=True):
            self._optimizer.state[weight] = {
                "step": torch.tensor(steps, dtype=torch.float32, device=self._device),
                "exp_avg": torch.from_numpy(first).to(weight.device, memory_format=_format(weight)),
                "exp_avg_sq": torch.from_numpy(second).to(weight.device, memory_format=_format(weight)),
            }


def _format(weight: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format
