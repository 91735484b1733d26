"""The mean of the weights over the last steps of a run."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class AveragedWeights(pl.Callback):
    """Keeps the mean of a model's weights over the last steps, each step counted alike.

    The plain mean of stochastic weight averaging (Izmailov et al. 2018), taken after every step. The steps go on from
    the weights as they are; held-out texts are measured with the mean, once there is one.

    Args:
        model: whose weights these are.
        steps: of the whole run.
        last: so many of them are averaged; below 1 it is a share of ``steps``.
    """

    def __init__(self, model: nn.Module, steps: int, last: float) -> None:
        self.model = model
        self.window = min(max(1, int(last if last >= 1 else last * steps)), steps)
        self.first = steps - self.window
        self.count = 0
        self.mean: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Add the weights after this step."""
        if trainer.global_step <= self.first:
            return
        self.count += 1
        for name, weights in self.model.named_parameters():
            if self.count == 1:
                self.mean[name] = weights.detach().clone()
            else:
                self.mean[name] = self.mean[name].to(weights.device).lerp_(weights, 1 / self.count)

    @torch.no_grad()
    def put(self) -> None:
        """Put the mean into the model."""
        for name, weights in self.model.named_parameters():
            weights.copy_(self.mean[name])

    def on_validation_start(self, *_: Any) -> None:
        """Measure the mean."""
        if self.count:
            self._own = {name: weights.detach().clone() for name, weights in self.model.named_parameters()}
            self.put()

    @torch.no_grad()
    def on_validation_end(self, *_: Any) -> None:
        """Go on with the weights as they were."""
        for name, weights in self.model.named_parameters():
            if self._own:
                weights.copy_(self._own[name])
        self._own = {}

    def on_exception(self, *_: Any) -> None:
        """A checkpoint holds the weights as they were, wherever the run is stopped."""
        self.on_validation_end()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.count, self.mean = state_dict["count"], dict(state_dict["mean"])
