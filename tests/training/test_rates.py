"""Rates by layer and by batch, ULMFiT's triangle, further optimizers, and what they keep."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import compose
from mirror.data.batches import BatchKey
from mirror.losses.tension import Tension
from mirror.training.module import MirrorModule
from mirror.training.optimizer import LIBRARY
from mirror.training.parts import build_module, check_parts
from mirror.training.rates import scaled, state_bytes
from mirror.training.schedule import linear, slanted
from tests.conftest import SENTENCES
from tests.helpers import curve, go, loss_of, module_of, pairs_of, small

OPTIMIZERS = ["adafactor", "lamb", "lion", "muon"]


class FakeTrainer:
    """``configure_optimizers`` asks the trainer for nothing else."""

    estimated_stepping_batches = 20


def optimizer_of(module: MirrorModule) -> Optimizer:
    module._trainer = FakeTrainer()  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, Optimizer)
    return optimizer


def rates_of(module: MirrorModule) -> dict[str, float]:
    """By the weights' names."""
    groups = optimizer_of(module).param_groups
    found = {id(weights): group["lr"] for group in groups for weights in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    return {name: found[id(weights)] for name, weights in module.named_parameters() if weights.requires_grad}


def test_each_layer_has_a_share_of_the_rate_above(tiny_bert: Path) -> None:
    module = module_of(MirrorEncoder.load(tiny_bert), head=nn.Linear(32, 8), optim={"lr": 0.1, "layer_decay": 0.5})
    for name, rate in rates_of(module).items():
        share = 0.5 if ".layer.0." in name else 0.25 if ".embeddings." in name else 1.0
        assert rate == pytest.approx(0.1 * share), name


def test_norms_of_a_layer_do_not_decay(tiny_bert: Path) -> None:
    optim = {"lr": 0.1, "layer_decay": 0.5, "weight_decay": 0.3}
    for group in optimizer_of(module_of(MirrorEncoder.load(tiny_bert), optim=optim)).param_groups:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] > 0}


def test_a_second_encoder_has_the_rates_of_the_first(tiny_bert: Path) -> None:
    config = small(tiny_bert, "loss=tension", "optim.layer_decay=0.5")
    module = build_module(config, MirrorEncoder.load(tiny_bert))
    assert isinstance(module.loss, Tension)
    rates = rates_of(module)
    for name, rate in rates.items():
        assert rates[name.replace("embed.encoder", "loss.second.encoder")] == rate


def test_linear_scaling_rule(tiny_bert: Path) -> None:
    config = small(tiny_bert, "optim.lr=0.01", "optim.scale_with_batch=64", "batch.size=256")
    assert set(rates_of(build_module(config, MirrorEncoder.load(tiny_bert))).values()) == {0.04}
    assert scaled({"lr": 0.01, "scale_with_batch": None}, 256) == {"lr": 0.01}


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("optim.scale_with_batch=1.5", r"optim\.scale_with_batch=1\.5 is out of range"),
        ("optim.layer_decay=0", r"optim\.layer_decay=0 is out of range"),
        ("schedule.warmup_steps=1.5", r"schedule\.warmup_steps=1\.5 is out of range"),
    ],
)
def test_what_cannot_be(typed: str, reason: str, tiny_bert: Path) -> None:
    with pytest.raises(MirrorError, match=reason):
        check_parts(small(tiny_bert, typed))


def test_pretraining_has_no_batches_of_texts() -> None:
    from mirror.training.optimizer import check_optimizer

    config = compose("pretrain", ["data.path=x", "optim.scale_with_batch=32"])
    with pytest.raises(MirrorError, match="counts texts"):
        check_optimizer(config.optim, config.schedule)


def course(steps: int, schedule: Any, **settings: Any) -> list[float]:
    """The rate of each step."""
    optimizer = SGD([nn.Parameter(torch.ones(()))], lr=1.0)
    scheduler, rates = schedule(optimizer, steps=steps, **settings), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_slanted_triangle() -> None:
    """By hand from equation 3: T = 40, cut_frac = 0.1, ratio = 32."""
    rates = course(40, slanted)
    assert rates[:5] == pytest.approx([1 / 32, (1 + 31 / 4) / 32, (1 + 31 / 2) / 32, (1 + 93 / 4) / 32, 1.0])
    for step in (5, 22, 39):
        assert rates[step] == pytest.approx((1 + (1 - (step - 4) / (4 * 9)) * 31) / 32)
    assert course(5, slanted)[0] == 1.0  # a cut of 0 steps


def test_warmup_as_a_share_of_the_steps() -> None:
    assert course(50, linear, warmup_steps=0.1) == course(50, linear, warmup_steps=5)
    assert course(50, linear, warmup_steps=0.1) != course(50, linear, warmup_steps=6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_further_optimizers_learn(name: str, tiny_bert: Path) -> None:
    if name != "adafactor":
        pytest.importorskip("pytorch_optimizer", reason="pip install 'mirror-encoders[optimizers]'")
    encoder = MirrorEncoder.load(tiny_bert)
    module = build_module(small(tiny_bert, f"optim={name}", "optim.lr=1e-3", "optim.layer_decay=0.9"), encoder)
    optimizer = optimizer_of(module)
    batch = pairs_of([(text, text) for text in SENTENCES[:16]], encoder)[BatchKey(0, 0)]
    losses = []
    for _ in range(8):
        loss = loss_of(module, batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    learn = sum(weights.numel() for weights in module.parameters() if weights.requires_grad)
    most = {"adafactor": 0.5, "lion": 1.1, "muon": 1.7, "lamb": 2.1}[name]
    assert 0 < state_bytes(optimizer) <= 4 * most * learn


def test_a_library_that_is_missing(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    for part in LIBRARY:
        name = part.rpartition(".")[2]
        with pytest.raises(MirrorError, match=rf"optim={name} needs the package .*mirror-encoders\[optimizers\]"):
            check_parts(small(tiny_bert, f"optim={name}"))


def test_a_run_with_all_of_it(tiny_bert: Path, tmp_path: Path) -> None:
    typed = ["optim=adafactor", "optim.layer_decay=0.385", "schedule=slanted", "adapt=gradual", "adapt.every=1"]
    go(tiny_bert, tmp_path / "run", *typed)
    assert len(curve(tmp_path / "run")) == 3
