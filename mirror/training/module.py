"""The training step: a batch in, the loss and its components out."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from mirror.adapt import Adaptation
from mirror.adapt.base import Full
from mirror.data.batches import MirroredBatch
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder
from mirror.training.optimizer import optimizers
from mirror.training.resume import seed_step


class MirrorModule(pl.LightningModule):
    """Tunes an encoder in place.

    Args:
        encoder: the encoder.
        loss: what is minimised.
        head: projection head between the encoder and the loss; None is none.
        optim: the optimizer as a part; see ``mirror.training.optimizer``.
        schedule: the course of its rate as a part.
        seed: of dropout.
        adaptation: which weights rest in a step; None is none.
    """

    def __init__(
        self,
        encoder: MirrorEncoder,
        loss: Loss,
        head: nn.Module | None,
        optim: Mapping[str, Any],
        schedule: Mapping[str, Any],
        seed: int = 0,
        adaptation: Adaptation | None = None,
    ) -> None:
        super().__init__()
        self.embed, self.loss = Embedder(encoder, head), loss
        self.optim, self.schedule, self.seed = optim, schedule, seed
        self.adaptation = adaptation or Full()

    def configure_model(self) -> None:
        """Under ``trainer=fsdp``, share each layer's weights out among the devices.

        Raises:
            MirrorError: the loss has weights of its own, which would have to follow weights that are shared out.
        """
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return
        if any(True for _ in self.loss.parameters()):
            raise MirrorError(f"trainer=fsdp does not work with {type(self.loss).__name__}: use trainer=ddp.")
        assert self.device_mesh is not None
        mesh, encoder = self.device_mesh["data_parallel"], self.embed.encoder
        for layers in (module for module in encoder.backbone.modules() if isinstance(module, nn.ModuleList)):
            for layer in layers:
                fully_shard(layer, mesh=mesh)
        for module in (encoder.backbone, encoder.pooling, self.embed.head):
            if module is not None and any(True for _ in module.parameters()):
                fully_shard(module, mesh=mesh)

    def on_train_batch_start(self, batch: MirroredBatch, batch_idx: int) -> None:
        """Dropout depends on the step alone."""
        seed_step(self.seed, self)

    def forward(self, batch: MirroredBatch) -> Components:
        """The loss of one batch and its components; of several devices, the mean of their losses is that of all
        texts."""
        components: Components = self.loss(self.embed, batch)
        if not isinstance(components, dict) or not isinstance(components.get("loss"), Tensor):
            raise MirrorError(
                f"loss: {type(self.loss).__name__} returned {components!r:.60} where a dict of scalars is wanted, one "
                'of them under "loss".'
            )
        return components

    def training_step(self, batch: MirroredBatch, batch_idx: int) -> Tensor:
        """The loss; ``fit.Curve`` writes it and its components to the trackers, ``trainer.Bar`` shows it."""
        components = self(batch)
        self.log_dict(
            {name: value.detach() for name, value in components.items()}, logger=False, batch_size=1, sync_dist=True
        )
        return components["loss"]  # type: ignore[no-any-return]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave out the gradients of weights that rest in this step, those of the loss's copies of them too.

        They are not frozen: DDP waits for the gradients of all weights that learned in its first step.
        """
        if resting := self.adaptation.resting(self.global_step):
            for name, weights in self.named_parameters():
                if name.rpartition("backbone.")[2] in resting:
                    weights.grad = None

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """The optimizer's step, then what the loss does after it."""
        super().optimizer_step(*arguments, **named)
        self.loss.after_step(self.embed)

    def configure_optimizers(self) -> Any:
        """Over everything that learns, whoever owns it."""
        steps = int(self.trainer.estimated_stepping_batches)
        return optimizers(self, self.embed.encoder.backbone, self.optim, self.schedule, steps)
