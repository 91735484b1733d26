"""Runs with each loss: to the end, stopped and resumed bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mirror import MirrorEncoder
from mirror.config.compose import compose
from mirror.runs.record import by_step
from mirror.training.run import train
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
}


@pytest.mark.parametrize("typed", LOSSES.values(), ids=LOSSES)
def test_a_resumed_run_is_one_that_never_stopped(
    typed: list[str], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:60]) + "\n")
    typed = [word.replace("MODEL", f"'{tiny_bert}'").replace("KEPT", f"'{tmp_path}/kept'") for word in typed]
    config: Any = compose("train", ["eval=none", f"data.path='{texts}'", f"model.path='{tiny_bert}'", *SMALL, *typed])
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
