"""Lightning's part of a run: the trainer, its callbacks, the weights that are kept."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from mirror.batches import BatchKey, MirrorData, MirroredBatch, MirroredPairs
from mirror.config import Select, Strategy, TrainConfig, plain
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.hardware import Hardware, is_chief
from mirror.module import MirrorModule
from mirror.record import RunRecord
from mirror.trackers import build_trackers
from mirror.trainer import build_trainer

log = logging.getLogger(__name__)

HARDLY_MOVED = 0.05
"""A loss that falls by less than this share says that the learning rate does not suit the model."""


def fit(
    config: TrainConfig,
    encoder: MirrorEncoder,
    data: MirrorData,
    folder: Path,
    hardware: Hardware,
    record: RunRecord,
) -> int:
    """Train the encoder in place and leave it in evaluation mode.

    Returns:
        The number of steps taken.

    Raises:
        MirrorError: the loss or the weights are not finite, or the memory does not suffice.
    """
    curve = Curve(record)
    callbacks: list[Callback] = [curve]
    best = None
    if config.select is Select.best:
        monitor = f"val/{config.eval.validation}"
        best = ModelCheckpoint(folder / "best", monitor=monitor, mode="max", save_weights_only=True)
        callbacks.append(best)
    world = config.trainer.devices * config.trainer.nodes
    log.info(
        "training on %s in %s, batches of %d texts%s",
        hardware.name,
        hardware.precision.value,
        config.batch.size,
        f", {config.batch.size // world} on each of {world} devices" if world > 1 else "",
    )
    module = MirrorModule(encoder, config.loss, config.optim)
    steps = config.trainer.max_steps or config.trainer.max_epochs * data.pairs.steps
    if config.trainer.strategy is Strategy.ddp:
        freeze_unused(encoder, data.pairs)
    trainer = build_trainer(
        config.trainer,
        hardware,
        build_trackers(config.logger, folder, plain(config)) if is_chief() else [],
        callbacks,
        max_epochs=config.trainer.max_epochs,
        max_steps=config.trainer.max_steps or -1,
        enable_checkpointing=best is not None,
        log_every_n_steps=1,
        val_check_interval=min(config.eval.every, steps) if best else None,
        check_val_every_n_epoch=None if best else 1,
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)  # measuring before must not change the training
    encoder.train()
    try:
        trainer.fit(module, data)
    except torch.OutOfMemoryError as error:
        raise MirrorError("The device has too little memory: lower batch.size or batch.max_tokens.") from error
    if not all(weights.isfinite().all() for weights in encoder.parameters()):
        raise MirrorError("The weights are not finite after training: lower optim.lr.")
    if best is not None and is_chief():
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
        module.load_state_dict(state)
        log.info("kept the best weights: %s", Path(best.best_model_path).name)
        shutil.rmtree(folder / "best", ignore_errors=True)
    if encoder.drophead is not None:
        encoder.drophead.remove()
        encoder.drophead = None
    encoder.to(hardware.device).eval()  # Lightning leaves it on the CPU
    curve.finish(config)
    return trainer.global_step


def freeze_unused(encoder: MirrorEncoder, pairs: MirroredPairs) -> None:
    """Freeze weights that no vector depends on, such as XLNet's mask embedding: DDP waits for their gradients."""
    batch = pairs[BatchKey(epoch=0, step=0)]
    blocks = [block.to(encoder.device) for block in batch.blocks[:1]]
    encoder(blocks).sum().backward()
    for weights in encoder.parameters():
        if weights.grad is None:
            weights.requires_grad_(False)
    encoder.zero_grad()


class Curve(Callback):
    """Keeps the losses of the run and the moment of the first step."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.losses = record, list[float]()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: MirroredBatch,
        batch_idx: int,
    ) -> None:
        """Note the loss."""
        if not self.losses:
            self.record.content["seconds"]["to first step"] = round(time.time() - self.record.started, 3)
        self.losses.append(float(outputs["loss"]))

    def finish(self, config: TrainConfig) -> None:
        """Store the ends of the curve; warn where it is flat."""
        tenth = max(1, len(self.losses) // 10)
        first, last = (sum(part) / tenth for part in (self.losses[:tenth], self.losses[-tenth:]))
        self.record["loss"] = {"first": first, "last": last}
        if len(self.losses) >= 10 and last > first * (1 - HARDLY_MOVED):
            log.warning(
                "The loss hardly moved (%.4f to %.4f): optim.lr=%g may not suit this model; small ones want "
                "3e-4 to 1e-3.",
                first,
                last,
                config.optim.lr,
            )
