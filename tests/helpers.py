"""Parts of a run, made as a run makes them but for what a test is about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from mirror import MirrorEncoder
from mirror.config import BatchConfig, TrainConfig
from mirror.config.compose import resumed
from mirror.data.batches import MirroredBatch, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.views import SpanMask
from mirror.losses.base import Loss
from mirror.losses.infonce import InfoNCE
from mirror.training.module import MirrorModule
from mirror.training.run import train

ADAMW = {"_target_": "mirror.training.optimizer.adamw", "lr": 1e-3}
CONSTANT = {"_target_": "mirror.training.schedule.constant"}


def pairs_of(
    pairs: Sequence[Pair],
    encoder: MirrorEncoder,
    batch: BatchConfig | None = None,
    seed: int = 0,
    *,
    rank: int = 0,
    world: int = 1,
    apart: bool = False,
    **aug: Any,
) -> MirroredPairs:
    """Batches of span-masked views; ``aug`` are settings of the mask."""
    views = SpanMask(encoder.layout, **aug)
    return MirroredPairs(
        pairs, encoder.layout, views, batch or BatchConfig(), seed, apart=apart, rank=rank, world=world
    )


def module_of(
    encoder: MirrorEncoder,
    loss: Loss | None = None,
    head: nn.Module | None = None,
    optim: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
) -> MirrorModule:
    """The training step."""
    return MirrorModule(encoder, loss or InfoNCE(), head, ADAMW | (optim or {}), schedule or CONSTANT)


def loss_of(module: nn.Module, batch: MirroredBatch) -> Tensor:
    """What is minimised on a batch."""
    loss: Tensor = module(batch)["loss"]
    return loss


SMALL = [
    "data.size=44", "batch.size=16", "optim.lr=1e-3", "trainer.max_epochs=2", "trainer.precision=fp32",
    "trainer.accelerator=cpu", "trainer.progress=false", "eval.resamples=0", "checkpoint_every=2",
]  # fmt: skip
"""Settings of a run of six steps, with a checkpoint after every second."""


def stop_and_resume(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a run after its third step, and let ``resume=`` go on to its end."""

    def stop(self: MirrorModule, *arguments: Any) -> None:
        if self.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MirrorModule, "on_train_batch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config, folder)
    train(resumed("train", folder, [f"resume={folder}"]), folder)
