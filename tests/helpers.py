"""Parts of a run, made as a run makes them but for what a test is about."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mirror import MirrorEncoder
from mirror.config import BatchConfig, DataConfig, Sample, TrainConfig
from mirror.config.compose import compose, resumed
from mirror.data.batches import MirroredBatch, MirroredPairs
from mirror.data.rows import Pair, in_memory
from mirror.data.texts import TextTable, choose
from mirror.data.views import SpanMask
from mirror.encoder.packing import TokenBlock
from mirror.losses.base import Loss
from mirror.losses.infonce import InfoNCE
from mirror.training.module import MirrorModule
from mirror.training.run import train
from tests.conftest import SENTENCES

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


def table_of(texts: list[str] | list[Pair]) -> TextTable:
    """A table of all texts in their order."""
    return choose(in_memory(texts), DataConfig(size=None, sample=Sample.first), 0, "test")


def ids_of(blocks: list[TokenBlock]) -> list[list[int]]:
    """Token ids by place in the batch."""
    rows: dict[int, list[int]] = {}
    for block in blocks:
        for k, text in enumerate(block.texts.tolist()):
            rows[text] = block.inputs["input_ids"][block.text_index == k].tolist()
    return [rows[i] for i in range(len(rows))]


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


THREE_STEPS = [
    "model=bert", "eval=none", "data.size=48", "batch.size=16", "optim.lr=1e-3", "trainer=cpu",
    "trainer.progress=false", "trainer.precision=fp32",
]  # fmt: skip
"""Settings of a run of three steps."""


def small(model: Path, *overrides: str) -> TrainConfig:
    """Settings for a run of three steps, less than a second long."""
    config = compose("train", [f"model.path='{model}'", *THREE_STEPS, *overrides])
    assert isinstance(config, TrainConfig)
    return config


def go(model: Path, folder: Path, *overrides: str, texts: Sequence[Any] = SENTENCES) -> MirrorEncoder:
    """Train in a new folder."""
    folder.mkdir(parents=True)
    return train(small(model, *overrides), folder, texts)


def metrics(folder: Path) -> dict[str, Any]:
    """The record of a run."""
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def curve(folder: Path, column: str = "loss") -> list[float]:
    """One column of the loss curve, where it has a value."""
    with (folder / "curve" / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def weights(encoder: MirrorEncoder) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in encoder.backbone.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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
