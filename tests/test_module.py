"""The optimizer, its schedule and the training step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from mirror import MirrorEncoder
from mirror.augment import set_dropout
from mirror.batches import BatchKey, MirroredBatch, MirroredPairs
from mirror.config import AugConfig, BatchConfig, LossConfig, OptimConfig, Schedule
from mirror.losses import info_nce
from mirror.module import MirrorModule
from tests.conftest import SENTENCES


class FakeTrainer:
    """``configure_optimizers`` asks the trainer for nothing else."""

    estimated_stepping_batches = 20


def built(model: Path, optim: OptimConfig) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimizer and the learning rate of each of 20 steps."""
    module = MirrorModule(MirrorEncoder.load(model), LossConfig(), optim)
    module._trainer = FakeTrainer()  # type: ignore[assignment]
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, rates


def test_norms_and_biases_do_not_decay(tiny_bert: Path) -> None:
    optimizer, _ = built(tiny_bert, OptimConfig(lr=1e-3, weight_decay=0.3))
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert set(decay.values()) == {0.3, 0.0}
    for group in optimizer.param_groups:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] > 0}


def test_decay_all(tiny_bert: Path) -> None:
    optimizer, _ = built(tiny_bert, OptimConfig(lr=1e-3, weight_decay=0.3, decay_all=True))
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.3
    assert {weight.ndim for weight in group["params"]} == {1, 2}


def test_every_trained_weight_is_in_one_group(tiny_bert: Path) -> None:
    """All but the pooler's, which is no part of the encoder."""
    optimizer, _ = built(tiny_bert, OptimConfig(lr=1e-3))
    shapes = sorted(tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"])
    named = MirrorEncoder.load(tiny_bert).backbone.named_parameters()
    assert shapes == sorted(tuple(weight.shape) for name, weight in named if not name.startswith("pooler"))


@pytest.mark.parametrize(
    ("schedule", "warmup", "step", "share"),
    [
        (Schedule.constant, 0, 0, 1.0),
        (Schedule.constant, 0, 19, 1.0),
        (Schedule.constant, 4, 0, 0.0),
        (Schedule.constant, 4, 2, 0.5),
        (Schedule.constant, 4, 4, 1.0),
        (Schedule.linear, 4, 1, 0.25),
        (Schedule.linear, 4, 12, 0.5),
        (Schedule.linear, 0, 19, 0.05),
        (Schedule.cosine, 0, 10, 0.5),
        (Schedule.cosine, 0, 5, 0.8536),
    ],
)
def test_learning_rate(tiny_bert: Path, schedule: Schedule, warmup: int, step: int, share: float) -> None:
    _, rates = built(tiny_bert, OptimConfig(lr=2e-3, schedule=schedule, warmup_steps=warmup))
    assert rates[step] == pytest.approx(share * 2e-3, rel=1e-3)


def first_batch(model: Path) -> tuple[MirrorEncoder, MirroredBatch]:
    encoder = MirrorEncoder.load(model)
    set_dropout(encoder.backbone, 0.0)
    encoder.train()
    pairs = [(text, text) for text in [*SENTENCES[:7], SENTENCES[0]]]
    return encoder, MirroredPairs(pairs, encoder, AugConfig(), BatchConfig(size=8), seed=0)[BatchKey(0, 0)]


@pytest.mark.filterwarnings("ignore:.*self.log.*")
@pytest.mark.parametrize("mask_duplicates", [False, True])
def test_training_step_is_info_nce_of_the_vectors(tiny_bert: Path, mask_duplicates: bool) -> None:
    encoder, batch = first_batch(tiny_bert)
    module = MirrorModule(encoder, LossConfig(temperature=0.3, mask_duplicates=mask_duplicates), OptimConfig(lr=1e-3))
    expected = info_nce(encoder(batch.blocks), batch.texts, 0.3, mask_duplicates=mask_duplicates)
    torch.testing.assert_close(module.training_step(batch, 0), expected)


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_gradients_reach_every_weight_but_the_pooler(tiny_bert: Path) -> None:
    encoder, batch = first_batch(tiny_bert)
    MirrorModule(encoder, LossConfig(), OptimConfig(lr=1e-3)).training_step(batch, 0).backward()
    silent = {name for name, weight in encoder.backbone.named_parameters() if weight.grad is None}
    assert silent == {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.mark.parametrize("clip", [None, 0.001])
def test_gradient_clipping(tiny_bert: Path, clip: float | None, tmp_path: Path) -> None:
    """``trainer.gradient_clip`` bounds the norm of the gradients that the optimizer sees."""
    from mirror.compose import compose
    from mirror.run import train

    norms: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norms.append(float(torch.stack([weight.grad.norm() for weight in weights]).norm()))

    overrides = ["eval=none", "batch.size=16", "trainer=cpu", "trainer.progress=false", "optim.lr=1e-3"]
    setting = f"trainer.gradient_clip={'null' if clip is None else clip}"
    hook = register_optimizer_step_post_hook(look)
    try:
        train(compose("train", [f"model.path='{tiny_bert}'", *overrides, setting]), tmp_path, SENTENCES[:48])
    finally:
        hook.remove()
    assert len(norms) == 3
    assert (max(norms) <= 0.001 * 1.01) is (clip is not None)
