"""Lightning's part of a run: the trainer, its callbacks, the weights that are kept."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from mirror.adapt import Adaptation
from mirror.config import Select, Strategy, TrainConfig, plain
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.module import MirrorData
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError, PrunedError
from mirror.evaluation.sets import TestSet
from mirror.losses.base import Loss
from mirror.runs.record import CHECKPOINTS, TRAINABLE, RunRecord, not_written, way_on
from mirror.training.curve import Curve
from mirror.training.hardware import Hardware, is_rank_zero
from mirror.training.module import MirrorModule
from mirror.training.parts import build_module, perturbations
from mirror.training.pruning import Trial
from mirror.training.rates import state_bytes
from mirror.training.resume import Checkpointer, InterruptedRun, interruptible
from mirror.training.trackers import build_trackers
from mirror.training.trainer import LOOK_EVERY, build_trainer, remove_checkpoints
from mirror.training.validation import Validation

log = logging.getLogger(__name__)

BEST = "best"
"""Folder of the best weights within a run's folder, where ``select=best`` asks for them; until the run is finished."""


def fit(
    config: TrainConfig,
    encoder: MirrorEncoder,
    data: MirrorData,
    folder: Path,
    hardware: Hardware,
    record: RunRecord,
    before: InterruptedRun | None = None,
    validation: TestSet | None = None,
    watch: Sequence[Callback] = (),
    adaptation: Adaptation | None = None,
) -> tuple[int, Loss]:
    """Train the encoder in place and leave it in evaluation mode.

    ``before`` is where an interrupted run goes on; ``validation`` is scored while it learns; ``watch`` looks on;
    ``adaptation`` is attached already.

    Returns:
        The number of steps taken, and the loss.

    Raises:
        MirrorError: the loss or the weights are not finite, or the memory does not suffice.
        PrunedError: the search that the run belongs to gives it up.
    """
    curve = Curve(record, LOOK_EVERY[hardware.device], config.optim.get("lr"))
    callbacks: list[Callback] = [curve, *watch, Checkpointer(folder, config.checkpoint_every)]
    best = config.select is Select.best
    if validation is not None:
        trial = Trial(config.trial) if config.trial else None
        watched = Validation(encoder, validation, config.eval.every, folder / BEST if best else None, trial)
        callbacks.append(watched)
    # Before anything is built: the weights of a head or of a loss follow the seed, and measuring before changes
    # nothing.
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config, encoder, adaptation)
    loss = module.loss
    effective = _effective_batch(config, len(data.batches.pairs), loss)
    record["effective_batch"] = effective
    log.info(
        "training on %s in %s, %s, %s", hardware.name, hardware.precision.value, loss.describe(), _in_words(effective)
    )
    if words := loss.meaning(effective["texts"]):
        log.info("the loss is %s", words)
    data.steps = steps = int(min(config.trainer.max_steps or math.inf, config.trainer.max_epochs * data.batches.steps))
    if before is not None:
        if before.steps > steps:
            raise MirrorError(
                f"The checkpoint {before.checkpoint} claims {before.steps} steps, more than the {steps} of the run: "
                "delete it, or start the run anew."
            )
        data.first = before.steps
        if is_rank_zero():
            log.info("going on from step %d of %d", before.steps, steps)
            before.keep_curve()
    if config.trainer.strategy is Strategy.ddp:
        freeze_unused(encoder, data.batches)
    elif config.trainer.strategy is Strategy.fsdp and not data.batches[BatchKey(0, 0)].sides[0][0][0].packed:
        raise MirrorError(f"trainer=fsdp needs packed batches, which {encoder.name} does not take: use trainer=ddp.")
    trainer = build_trainer(
        config.trainer,
        hardware,
        build_trackers(config.logger, folder, {**plain(config), "effective_batch": effective})
        if is_rank_zero()
        else [],
        callbacks,
        max_epochs=1,  # the sampler goes through all epochs in one, so that a run can go on anywhere
        max_steps=steps,
        log_every_n_steps=1,
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)  # whatever has been drawn for weights
    try:
        with encoder.perturbed(perturbations(config, data.batches.views)), interruptible(trainer):
            trainer.fit(module, data, ckpt_path=before.checkpoint if before else None)
    except PrunedError:
        for kept in (folder / BEST, folder / CHECKPOINTS):
            remove_checkpoints(kept)
        raise
    except torch.OutOfMemoryError as error:
        raise MirrorError(
            "The device has too little memory: set batch.micro (the batch in parts), or lower batch.max_tokens."
        ) from error
    except OSError as error:
        raise not_written(folder, error) from error
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise MirrorError(
            f"Another process of the run has ended, by a mistake of its own or a kill: {way_on(folder)}."
        ) from error
    record[TRAINABLE] = learnt = _learnt(module, trainer)
    if config.trainer.strategy is Strategy.fsdp:
        unshard(encoder, trainer)
        if not is_rank_zero():
            return trainer.global_step, loss
    if not all(weights.isfinite().all() for weights in encoder.parameters()):
        raise MirrorError("The weights are not finite after training: lower optim.lr.")
    if best and is_rank_zero():
        watched.restore_best(module)
    encoder.to(hardware.device)  # Lightning leaves it on the CPU
    curve.finish()
    log.info("%s", _learnt_in_words(learnt))
    return trainer.global_step, loss


def _effective_batch(config: TrainConfig, texts: int, loss: Loss) -> dict[str, int]:
    """What the gradient of one step is made of."""
    size, world = min(config.batch.size, texts), config.trainer.devices * config.trainer.nodes
    share = -(-size // world)
    return {
        "texts": size,
        "negatives": loss.negatives(size),
        "devices": world,
        "texts_per_device": share,
        "texts_at_a_time": min(config.batch.micro or share, share),
    }


def _in_words(batch: dict[str, int]) -> str:
    words = f"batches of {batch['texts']} texts"
    if batch["negatives"]:
        words += f", {batch['negatives']} negatives for each view"
    if batch["devices"] > 1:
        words += f", {batch['texts_per_device']} texts on each of {batch['devices']} devices"
    if batch["texts_at_a_time"] < batch["texts_per_device"]:
        words += f", encoded {batch['texts_at_a_time']} at a time"
    return words


def _learnt(module: MirrorModule, trainer: pl.Trainer) -> dict[str, Any]:
    """How many weights of the encoder and its head learn, in all steps together, and what that takes."""
    numbers = [(weights.numel(), weights.requires_grad) for weights in module.embed.parameters()]
    total, learn = sum(count for count, _ in numbers), sum(count for count, learns in numbers if learns)
    return {
        "parameters": total,
        "learn": learn,
        "share": round(learn / total, 6),
        "optimizer_bytes": state_bytes(trainer.optimizers[0]),
    }


def _learnt_in_words(learnt: Mapping[str, Any]) -> str:
    return (
        f"trainable: {learnt['learn']:,} of {learnt['parameters']:,} parameters ({learnt['share']:.1%}); the optimizer "
        f"keeps {learnt['optimizer_bytes'] / 2**20:.1f} MiB"
    )


def freeze_unused(encoder: MirrorEncoder, pairs: MirroredPairs) -> None:
    """Freeze weights that no vector depends on, such as XLNet's mask embedding: DDP waits for their gradients."""
    batch = pairs[BatchKey(epoch=0, step=0)]
    blocks = [block.to(encoder.device) for block in batch.sides[0][0][:1]]
    encoder(blocks).sum().backward()
    for weights in encoder.parameters():
        if weights.grad is None:
            weights.requires_grad_(False)
    encoder.zero_grad()


def unshard(encoder: MirrorEncoder, trainer: pl.Trainer) -> None:
    """Give rank zero a backbone that holds all weights again; the other devices keep their share."""
    state = trainer.strategy.lightning_module_state_dict()  # whole on rank zero, on the CPU; all take part
    if is_rank_zero():
        backbone = type(encoder.backbone)(encoder.backbone.config)
        backbone.load_state_dict(within(state, "embed.encoder.backbone."))
        encoder.pooling.load_state_dict(within(state, "embed.encoder.pooling."))
        encoder.replace_backbone(backbone)


def within(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a state that belongs to one module."""
    return {name.removeprefix(prefix): weights for name, weights in state.items() if name.startswith(prefix)}
