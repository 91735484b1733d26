"""Two or four processes that share the texts learn what one process with all of them learns."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from mirror import MirrorEncoder
from mirror.augment import set_dropout
from mirror.batches import BatchKey, MirroredBatch, MirroredPairs
from mirror.config import AugConfig, BatchConfig, LossConfig, LossForm, OptimConfig
from mirror.module import MirrorModule
from tests.conftest import ROOT, SENTENCES

TEXTS = [*SENTENCES[:18], *SENTENCES[:3], *SENTENCES[30:32]]
"""23, with duplicates: a batch of 16 and one of 7, which no two devices can share evenly."""


class Case(NamedTuple):
    """One comparison."""

    step: int
    loss: LossConfig
    micro: int | None = None


CASES = [
    Case(step, LossConfig(temperature=0.1, form=form, mask_duplicates=mask))
    for step in (0, 1)
    for form in LossForm
    for mask in (True, False)
]
CASES += [Case(step, LossConfig(temperature=0.1), micro=micro) for step in (0, 1) for micro in (1, 3)]


class Step(nn.Module):
    """The training step as a forward pass, which is what DDP wraps."""

    def __init__(self, module: MirrorModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: MirroredBatch) -> Tensor:
        return self.module.training_step(batch, 0)


def learnt(model: Path, case: Case, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """Gradients by the weights' names, and the loss."""
    encoder = MirrorEncoder.load(model)
    with torch.no_grad():  # untrained CLS vectors are nearly parallel: larger weights part them
        for weight in encoder.backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(5)
    set_dropout(encoder.backbone, 0.0)
    encoder.train()
    sizes = BatchConfig(size=16, micro=case.micro)
    pairs = MirroredPairs([(text, text) for text in TEXTS], encoder, AugConfig(), sizes, 0, rank, world)
    step: nn.Module = Step(MirrorModule(encoder, case.loss, OptimConfig(lr=1e-3)))
    wrapped = DistributedDataParallel(step, find_unused_parameters=True) if world > 1 else step
    loss = wrapped(pairs[BatchKey(0, case.step)])
    loss.backward()
    named = encoder.named_parameters()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in named if weight.grad is not None}}


def process(rank: int, world: int, folder: Path, model: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    torch.save([learnt(model, case, rank, world) for case in CASES], folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def distributed(
    request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[list[dict[str, Tensor]]]:
    """What so many processes learn, by rank and case."""
    folder = tmp_path_factory.mktemp("ddp")
    spawn(process, (request.param, folder, tiny_bert), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.filterwarnings("ignore:.*self.log.*")
@pytest.mark.parametrize("index", range(len(CASES)), ids=str)
def test_processes_give_the_loss_and_the_gradients_of_one(
    distributed: list[list[dict[str, Tensor]]], tiny_bert: Path, index: int
) -> None:
    """The batch of 7 leaves the devices with different numbers of texts; with ``micro``, of parts too."""
    expected = learnt(tiny_bert, CASES[index]._replace(micro=None))
    loss = expected.pop("loss")
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
    losses = torch.stack([cases[index]["loss"] for cases in distributed])
    torch.testing.assert_close(losses.mean(), loss, atol=1e-5, rtol=1e-5)
    for cases in distributed:
        found = cases[index]
        assert found.keys() - {"loss"} == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


def go(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command leaves, run in a folder that has a file of texts."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    (metrics,) = folder.glob(f"{arguments[-1].removeprefix('hydra.run.dir=')}/metrics.json")
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return content


@pytest.mark.slow
def test_two_processes_from_the_command_line(tiny_bert: Path, tmp_path: Path) -> None:
    """They train together, and leave the folder of one run."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    common = [
        f"model.path={tiny_bert}", "data.path=texts.txt", "data.size=100", "batch.size=16", "optim.lr=1e-3",
        "eval=none", "aug.dropout=0", "trainer.progress=false", "trainer.accelerator=cpu",
    ]  # fmt: skip
    two = go("train.py", tmp_path, *common, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")
    one = go("train.py", tmp_path, *common, "hydra.run.dir=one")
    assert len(list(tmp_path.rglob("metrics.json"))) == 2
    assert not (tmp_path / "outputs").exists()
    assert two["status"] == "finished"
    assert two["steps"] == one["steps"] == 7
    assert two["views"]["examples"] == one["views"]["examples"]
    vectors = [MirrorEncoder.load(tmp_path / name / "encoder").encode(SENTENCES[:8]) for name in ("one", "two")]
    torch.testing.assert_close(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_best_weights_under_ddp(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    common = [f"model.path={tiny_bert}", "data.path=texts.txt", "batch.size=16", "trainer.accelerator=cpu"]
    common += ["trainer=ddp", "trainer.devices=2", "trainer.progress=false", f"eval.data_dir={eval_dir}"]
    content = go("train.py", tmp_path, *common, "select=best", "eval.every=3", "optim.lr=1e-3", "hydra.run.dir=run")
    assert content["status"] == "finished"
    with (tmp_path / "run" / "curve" / "metrics.csv").open(encoding="utf-8") as file:
        watched = [float(row["val/stsb-dev"]) for row in csv.DictReader(file) if row["val/stsb-dev"]]
    assert len(watched) == 5
    # To one point, as the vectors are measured in batches of another shape.
    assert content["scores"]["tuned"]["stsb-dev"]["all"] == pytest.approx(max(watched), abs=1)


@pytest.mark.slow
def test_pretraining_in_two_processes(tmp_path: Path) -> None:
    """Two devices with half of each batch learn what one learns."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    common = [
        "data.path=texts.txt", "model.hidden=32", "model.intermediate=64", "model.layers=2", "model.heads=2",
        "tokenizer.vocab_size=150", "batch.tokens=300", "batch.max_tokens=32", "held_out.texts=20",
        "held_out.every=10", "trainer.accelerator=cpu", "trainer.max_steps=10", "trainer.progress=false",
    ]  # fmt: skip
    one = go("pretrain.py", tmp_path, *common, "hydra.run.dir=one")
    two = go("pretrain.py", tmp_path, *common, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")
    assert two["perplexity"]["10"] == pytest.approx(one["perplexity"]["10"], rel=1e-4)
    vectors = [MirrorEncoder.load(tmp_path / name / "model", "mean").encode(SENTENCES[:8]) for name in ("one", "two")]
    torch.testing.assert_close(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), atol=1e-4, rtol=1e-3)
