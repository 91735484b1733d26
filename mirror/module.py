"""The training step: blocks in, InfoNCE out, AdamW."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from mirror.batches import MirroredBatch
from mirror.config import LossConfig, OptimConfig
from mirror.encoder import MirrorEncoder
from mirror.losses import info_nce
from mirror.optimizer import adamw
from mirror.packing import TokenBlock
from mirror.resume import seed_step


class MirrorModule(pl.LightningModule):
    """Mirror tuning of an encoder."""

    def __init__(self, encoder: MirrorEncoder, loss: LossConfig, optim: OptimConfig, seed: int = 0) -> None:
        """The encoder is tuned in place; ``seed`` is of dropout."""
        super().__init__()
        self.encoder, self.loss, self.optim, self.seed = encoder, loss, optim, seed

    def configure_model(self) -> None:
        """Under ``trainer=fsdp``, share each layer's weights out among the devices."""
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return
        assert self.device_mesh is not None
        mesh, backbone = self.device_mesh["data_parallel"], self.encoder.backbone
        for layers in (module for module in backbone.modules() if isinstance(module, nn.ModuleList)):
            for layer in layers:
                fully_shard(layer, mesh=mesh)
        fully_shard(backbone, mesh=mesh)

    def on_train_batch_start(self, batch: MirroredBatch, batch_idx: int) -> None:
        """Dropout depends on the step alone."""
        seed_step(self.seed, self)

    def forward(self, batch: MirroredBatch) -> Tensor:
        """The loss of one mirrored batch, a scalar; of several devices, the mean of theirs is that of all texts."""
        vectors = self._vectors(batch.parts)  # (2N, D)
        return info_nce(
            vectors,
            batch.texts,
            self.loss.temperature,
            form=self.loss.form,
            mask_duplicates=self.loss.mask_duplicates,
        )

    def training_step(self, batch: MirroredBatch, batch_idx: int) -> Tensor:
        """The loss; ``mirror.fit.Curve`` writes it to the trackers, ``mirror.trainer.Bar`` shows it."""
        loss: Tensor = self(batch)
        self.log("loss", loss, logger=False, batch_size=1, sync_dist=True)
        return loss

    def _vectors(self, parts: list[list[TokenBlock]]) -> Tensor:
        """The views' vectors, (2N, D). Several parts are encoded one after the other and encoded again for their
        gradients, with the same dropout (gradient caching, Gao et al. 2021): the activations of only one part are held.
        """
        if len(parts) == 1:
            vectors: Tensor = self.encoder(parts[0])
            return vectors

        def encode(part: list[TokenBlock], device_of: Tensor) -> Tensor:
            encoded: Tensor = self.encoder(part)
            return encoded

        # checkpoint keeps the random state of the devices of the tensors among its arguments; in a block it finds none.
        return torch.cat([checkpoint(encode, part, part[0].text_index, use_reentrant=False) for part in parts])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score the validation set, which is the only batch; in float32, as what is kept will be scored."""
        with torch.autocast(self.device.type, enabled=False):
            score = batch.score(self.encoder.encode)
        # Every device scores the whole set, so the mean over them is the score.
        self.log(f"val/{batch.name}", score.value, prog_bar=True, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW over the encoder's weights."""
        return adamw(self.encoder, self.optim, int(self.trainer.estimated_stepping_batches))
