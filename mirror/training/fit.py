"""Lightning's part of a run: the trainer, its callbacks, the weights that are kept."""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from mirror.config import Select, Strategy, TrainConfig, plain
from mirror.data.batches import BatchKey, MirrorData, MirroredBatch, MirroredPairs
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError, PrunedError
from mirror.runs.record import RunRecord
from mirror.training.hardware import Hardware, is_chief
from mirror.training.module import MirrorModule
from mirror.training.pruning import Pruning
from mirror.training.resume import CHECKPOINTS, Earlier, Keeper, not_written
from mirror.training.trackers import build_trackers
from mirror.training.trainer import LOOK_EVERY, build_trainer

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
    before: Earlier | None = None,
    watch: Sequence[Callback] = (),
) -> int:
    """Train the encoder in place and leave it in evaluation mode.

    ``before`` is where an interrupted run goes on; ``watch`` looks on.

    Returns:
        The number of steps taken.

    Raises:
        MirrorError: the loss or the weights are not finite, or the memory does not suffice.
        PrunedError: the search that the run belongs to gives it up.
    """
    curve = Curve(record, LOOK_EVERY[hardware.device])
    callbacks: list[Callback] = [curve, *watch, Keeper(folder, config.checkpoint_every)]
    best = None
    if config.select is Select.best:
        monitor = f"val/{config.eval.validation}"
        best = ModelCheckpoint(folder / "best", monitor=monitor, mode="max", save_weights_only=True)
        callbacks.append(best)
        if config.trial:
            callbacks.append(Pruning(config.trial, config.eval.validation))
    effective = _effective_batch(config, len(data.pairs.pairs))
    record["effective_batch"] = effective
    log.info("training on %s in %s, %s", hardware.name, hardware.precision.value, _in_words(effective))
    module = MirrorModule(encoder, config.loss, config.optim, config.seed)
    data.steps = steps = int(min(config.trainer.max_steps or math.inf, config.trainer.max_epochs * data.pairs.steps))
    if before is not None:
        data.first = before.steps
        if is_chief():
            log.info("going on from step %d of %d", before.steps, steps)
            before.keep_curve()
    if config.trainer.strategy is Strategy.ddp:
        freeze_unused(encoder, data.pairs)
    elif config.trainer.strategy is Strategy.fsdp and not data.pairs[BatchKey(0, 0)].parts[0][0].packed:
        raise MirrorError(f"trainer=fsdp needs packed batches, which {encoder.name} does not take: use trainer=ddp.")
    trainer = build_trainer(
        config.trainer,
        hardware,
        build_trackers(config.logger, folder, {**plain(config), "effective_batch": effective}) if is_chief() else [],
        callbacks,
        max_epochs=1,  # the sampler goes through all epochs in one, so that a run can go on anywhere
        max_steps=steps,
        log_every_n_steps=1,
        val_check_interval=min(config.eval.every, steps) if best else None,
        check_val_every_n_epoch=None if best else 1,
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)  # measuring before must not change the training
    encoder.train()
    try:
        trainer.fit(module, data, ckpt_path=before.checkpoint if before else None)
    except PrunedError:
        for kept in (folder / "best", folder / CHECKPOINTS):
            shutil.rmtree(kept, ignore_errors=True)
        raise
    except torch.OutOfMemoryError as error:
        raise MirrorError(
            "The device has too little memory: set batch.micro (the batch in parts), or lower batch.max_tokens."
        ) from error
    except OSError as error:
        raise not_written(folder, error) from error
    if config.trainer.strategy is Strategy.fsdp:
        unshard(encoder, trainer)
        if not is_chief():
            return trainer.global_step
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


def _effective_batch(config: TrainConfig, texts: int) -> dict[str, int]:
    """What the gradient of one step is made of."""
    size, world = min(config.batch.size, texts), config.trainer.devices * config.trainer.nodes
    share = -(-size // world)
    return {
        "texts": size,
        "negatives": 2 * size - 2,
        "devices": world,
        "texts_per_device": share,
        "texts_at_a_time": min(config.batch.micro or share, share),
    }


def _in_words(batch: dict[str, int]) -> str:
    words = f"batches of {batch['texts']} texts, {batch['negatives']} negatives for each view"
    if batch["devices"] > 1:
        words += f", {batch['texts_per_device']} texts on each of {batch['devices']} devices"
    if batch["texts_at_a_time"] < batch["texts_per_device"]:
        words += f", encoded {batch['texts_at_a_time']} at a time"
    return words


def freeze_unused(encoder: MirrorEncoder, pairs: MirroredPairs) -> None:
    """Freeze weights that no vector depends on, such as XLNet's mask embedding: DDP waits for their gradients."""
    batch = pairs[BatchKey(epoch=0, step=0)]
    blocks = [block.to(encoder.device) for block in batch.parts[0][:1]]
    encoder(blocks).sum().backward()
    for weights in encoder.parameters():
        if weights.grad is None:
            weights.requires_grad_(False)
    encoder.zero_grad()


def unshard(encoder: MirrorEncoder, trainer: pl.Trainer) -> None:
    """Give the chief a backbone that holds all weights again; the other devices keep their share."""
    state = trainer.strategy.lightning_module_state_dict()  # of the chief whole, on the CPU; all take part
    if is_chief():
        backbone = type(encoder.backbone)(encoder.backbone.config)
        prefix = "encoder.backbone."
        backbone.load_state_dict({name.removeprefix(prefix): weights for name, weights in state.items()})
        encoder.backbone = backbone


class Curve(Callback):
    """Writes the loss of every step to the trackers, stops at one that is not finite, notes the moment of the first.

    Args:
        record: of the run.
        every: steps between two looks at the losses: each look waits for the device.
    """

    def __init__(self, record: RunRecord, every: int) -> None:
        self.record, self.every = record, every
        self.losses, self._unseen = list[float](), list[Tensor]()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"losses": [*self.losses, *(float(loss) for loss in self._unseen)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint of the run's beginning."""
        self.losses = state["losses"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The curve of a run that goes on begins where the run began."""
        for step, loss in enumerate(self.losses, start=1):
            self._write(trainer, step, loss)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: MirroredBatch,
        batch_idx: int,
    ) -> None:
        """Note the loss; look where it is time.

        Raises:
            MirrorError: a loss is not finite: nothing after it means anything.
        """
        if "to first step" not in self.record.content["seconds"]:
            self.record.content["seconds"]["to first step"] = round(time.time() - self.record.started, 3)
        self._unseen.append(trainer.callback_metrics["loss"])  # over all devices
        if len(self._unseen) >= self.every or trainer.global_step >= trainer.max_steps:
            for step, loss in self._look(trainer):
                if not math.isfinite(loss):
                    raise MirrorError(
                        f"The loss is {loss} at step {step}: lower optim.lr, raise loss.temperature, or set "
                        "trainer.precision=fp32."
                    )

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """What has been computed is written all the same."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> list[tuple[int, float]]:
        """Move the unseen losses to the trackers; their steps, counted from 1, and their values."""
        if not self._unseen:
            return []
        values = torch.stack(self._unseen).tolist()
        seen = list(enumerate(values, start=trainer.global_step - len(values) + 1))
        for step, loss in seen:
            self._write(trainer, step, loss)
        self.losses += values
        self._unseen.clear()
        return seen

    def _write(self, trainer: pl.Trainer, step: int, loss: float) -> None:
        for tracker in trainer.loggers:
            tracker.log_metrics({"loss": loss}, step - 1)

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
