"""Runs with each loss: to the end, stopped and resumed bit for bit, and in bf16."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mirror import MirrorEncoder
from mirror.config.compose import compose
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import SENTENCES
from tests.helpers import SMALL, stop_and_resume

LOSSES = {
    "cross": ["loss.directions=cross", "loss.focal=0.5"],
    "queue": ["loss=queue", "loss.size=40"],
    "batch and queue": ["loss=queue", "loss.size=40", "loss.in_batch=true", "loss.key_dropout=false", "head=tanh"],
    "random triplets": ["loss=triplet", "loss.hardest=false"],
    "tension": ["loss=tension"],
    "tension in batch": ["loss=tension_in_batch"],
    "barlow": ["experiment=barlow", "head.hidden=16", "head.out=16"],
    "vicreg": ["experiment=vicreg", "head.hidden=16", "head.out=16"],
    "mixed": ["loss.mixed=4", "loss.mixed_from=3"],
    "ct": ["experiment=ct", "select=last", "schedule.every=2", "trainer.max_steps=6"],
    "mlm": ["auxiliary=mlm", "head=tanh"],
    "ranking": ["loss=ranking", "teacher=MODEL", "loss.keep=KEPT", "loss.method=listnet", "head=tanh"],
    "distil": ["loss=distil", "teacher=MODEL", "loss.keep=KEPT", "loss.match=mse", "model.pooling=concat"],
    "matryoshka": ["loss=matryoshka", "loss.sizes=[32,8]"],
    "local": ["loss=local", "model.path=DEEPER"],
}


@pytest.fixture
def config_of(tiny_bert: Path, tmp_path: Path) -> Callable[[list[str]], Any]:
    """The settings of a small run with what is typed."""

    def composed(typed: list[str]) -> Any:
        texts = tmp_path / "texts.txt"
        texts.write_text("\n".join(SENTENCES[:60]) + "\n")
        if "DEEPER" in " ".join(typed):
            build("bert", tmp_path / "deeper")
        places = {"MODEL": tiny_bert, "DEEPER": tmp_path / "deeper", "KEPT": tmp_path / "kept"}
        for name, place in places.items():
            typed = [word.replace(name, f"'{place}'") for word in typed]
        return compose("train", ["eval=none", f"data.path='{texts}'", f"model.path='{tiny_bert}'", *SMALL, *typed])

    return composed


@pytest.mark.parametrize("typed", LOSSES.values(), ids=LOSSES)
def test_a_resumed_run_is_one_that_never_stopped(
    typed: list[str], config_of: Callable[[list[str]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(typed)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)
    losses = by_step(whole)
    assert len(losses) == 6

    stop_and_resume(config, stopped, monkeypatch)
    assert by_step(stopped) == losses
    once, again = (MirrorEncoder.load(folder / "encoder").state_dict() for folder in (whole, stopped))
    assert all(torch.equal(weights, again[name]) for name, weights in once.items())


@pytest.mark.parametrize("typed", LOSSES.values(), ids=LOSSES)
def test_bf16_rounds_a_loss_and_no_more(
    typed: list[str], config_of: Callable[[list[str]], Any], tmp_path: Path
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        train(config_of([*typed, f"trainer.precision={precision}"]), tmp_path / precision)
        losses[precision] = [loss for _, loss in by_step(tmp_path / precision)]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.03)  # of bf16's 8 bits
    assert all(map(math.isfinite, losses["bf16"]))
