"""Two or four processes that share the texts learn what one process with all of them learns."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from mirror import MirrorEncoder
from mirror.config import BatchConfig, LossForm
from mirror.data.batches import BatchKey
from mirror.encoder.perturb import set_dropout
from mirror.losses.infonce import InfoNCE
from mirror.runs.record import by_step
from mirror.training.resume import interrupted_run
from tests.conftest import ROOT, SENTENCES
from tests.helpers import module_of, pairs_of

TEXTS = [*SENTENCES[:18], *SENTENCES[:3], *SENTENCES[30:32]]
"""23, with duplicates: a batch of 16 and one of 7, which no two devices can share evenly."""


class Case(NamedTuple):
    """One comparison."""

    step: int
    loss: dict[str, Any]
    micro: int | None = None


CASES = [
    Case(step, {"temperature": 0.1, "form": form, "mask_duplicates": mask})
    for step in (0, 1)
    for form in LossForm
    for mask in (True, False)
]
CASES += [Case(step, {"temperature": 0.1}, micro=micro) for step in (0, 1) for micro in (1, 3)]


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
    pairs = pairs_of([(text, text) for text in TEXTS], encoder, sizes, rank=rank, world=world)
    step: nn.Module = module_of(encoder, InfoNCE(**case.loss))
    wrapped = DistributedDataParallel(step, find_unused_parameters=True) if world > 1 else step
    loss = wrapped(pairs[BatchKey(0, case.step)])["loss"]
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


@pytest.mark.parametrize("index", range(len(CASES)), ids=str)
def test_processes_give_the_loss_and_the_gradients_of_one(
    distributed: list[list[dict[str, Tensor]]], tiny_bert: Path, index: int
) -> None:
    """The batch of 7 leaves the devices with different numbers of texts; with ``micro``, of parts too."""
    expected = learnt(tiny_bert, CASES[index]._replace(micro=None))
    loss = expected.pop("loss")
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert largest > 1e-3
    losses = torch.stack([cases[index]["loss"] for cases in distributed])
    torch.testing.assert_close(losses.mean(), loss, atol=1e-5, rtol=1e-5)
    for cases in distributed:
        found = cases[index]
        assert found.keys() - {"loss"} == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=1e-5 * max(1, largest), rtol=1e-4)


def go(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command leaves, run in a folder that has a file of texts."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    (metrics,) = folder.glob(f"{arguments[-1].removeprefix('hydra.run.dir=')}/metrics.json")
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def common(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a run of seven steps, of which the last has four texts, and nothing random."""
    texts = tmp_path_factory.mktemp("texts") / "texts.txt"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    return [
        "model=bert", f"model.path={tiny_bert}", f"data.path={texts}", "data.size=100", "batch.size=16",
        "optim.lr=1e-3", "eval=none", "aug.dropout=0", "trainer.progress=false", "trainer.accelerator=cpu",
        "trainer.precision=fp32",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    go("train.py", folder, *common, "hydra.run.dir=run")
    return folder / "run"


@pytest.fixture(scope="module")
def rounded(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process in bf16."""
    folder = tmp_path_factory.mktemp("rounded")
    go("train.py", folder, *common, "trainer.precision=bf16", "hydra.run.dir=run")
    return folder / "run"


def assert_like(run: Path, alone: Path) -> None:
    vectors = [MirrorEncoder.load(folder / "encoder").encode(SENTENCES[:8]) for folder in (run, alone)]
    torch.testing.assert_close(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), atol=1e-3, rtol=1e-3)
    losses = [[loss for _, loss in by_step(folder)] for folder in (run, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert len(losses[0]) == 7


def assert_rounded(run: Path, rounded: Path, exact: Path, encoder: str = "encoder") -> None:
    """A run in bf16 differs by rounding alone from that of one process, ``rounded``.

    Where sums are taken in another order they are rounded in another way, and training carries that on. Both runs are
    roundings of the one in fp32, and about as far from it; so they are no further apart than twice the distance of
    ``rounded`` from it, on the loss curve and in the vectors. Measured here, on a CPU without bfloat16 units: the first
    loss is the same to six digits; the curves are 0.5 and 0.6, the vectors 0.5 and 0.9 times that distance apart.
    """

    def found(folder: Path) -> list[Tensor]:
        vectors = MirrorEncoder.load(folder / encoder, "cls" if encoder == "encoder" else "mean").encode(SENTENCES)
        return [torch.tensor([loss for _, loss in by_step(folder)]), torch.from_numpy(vectors)]

    for one, other, wanted in zip(found(run), found(rounded), found(exact), strict=True):
        assert 0 < (one - other).norm() <= 2 * (other - wanted).norm()


@pytest.mark.slow
@pytest.mark.parametrize("micro", ["null", "3"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_sharing_strategies(strategy: str, micro: str, common: list[str], alone: Path, tmp_path: Path) -> None:
    """Texts alone, or weights too: the run is that of one process, and so is the encoder it saves."""
    content = go("train.py", tmp_path, *common, f"trainer={strategy}", f"batch.micro={micro}", "hydra.run.dir=run")
    expected = {"texts": 16, "negatives": 30, "devices": 2, "texts_per_device": 8}
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
    assert not (tmp_path / "outputs").exists()
    assert content["effective_batch"] == {**expected, "texts_at_a_time": 8 if micro == "null" else 3}
    assert_like(tmp_path / "run", alone)


@pytest.mark.slow
@pytest.mark.parametrize("micro", ["null", "3"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_sharing_strategies_in_bf16(
    strategy: str, micro: str, common: list[str], rounded: Path, alone: Path, tmp_path: Path
) -> None:
    settings = [f"trainer={strategy}", f"batch.micro={micro}", "trainer.precision=bf16", "hydra.run.dir=run"]
    assert go("train.py", tmp_path, *common, *settings)["hardware"]["precision"] == "bf16"
    assert_rounded(tmp_path / "run", rounded, alone)


KILLED = """
import os, signal
from mirror.cli import train
from mirror.training.module import MirrorModule

def kill(self, *arguments):
    if self.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

MirrorModule.on_train_batch_end = kill
train()
"""
"""``scripts/train.py``, every process of which is killed in its fifth step."""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_several_devices_go_on(strategy: str, common: list[str], alone: Path, tmp_path: Path) -> None:
    """A run of two devices is killed, both of them, and goes on from its checkpoint."""
    killed = tmp_path / "killed.py"
    killed.write_text(KILLED, encoding="utf-8")
    options = [*common, f"trainer={strategy}", "checkpoint_every=2", "hydra.run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, str(killed), *options],
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    assert process.wait(timeout=900) == -signal.SIGKILL
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert interrupted_run(tmp_path / "run").steps == 4
    go("train.py", tmp_path, "resume=run", "hydra.run.dir=run")
    assert_like(tmp_path / "run", alone)


STOPPED = KILLED.replace("if self.global_step == 5:", "if self.global_step == 5 and self.global_rank == 0:").replace(
    "SIGKILL", "SIGTERM"
)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_several_devices_stop_together(strategy: str, common: list[str], alone: Path, tmp_path: Path) -> None:
    """SIGTERM to the first process alone: all end after the same step, which is in a checkpoint."""
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script), *common, f"trainer={strategy}", "hydra.run.dir=run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 128 + signal.SIGTERM, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("interrupted") == 1
    assert f"interrupted: go on with mirror-train resume={tmp_path / 'run'}" in result.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert interrupted_run(tmp_path / "run").steps == 6  # the signal came when the fifth was done
    go("train.py", tmp_path, "resume=run", "hydra.run.dir=run")
    assert_like(tmp_path / "run", alone)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def nodes(commands: list[list[str]], environments: list[dict[str, str]], folder: Path) -> None:
    """The processes of several machines, all of them this one."""
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        for process in processes:
            _, told = process.communicate(timeout=900)
            assert process.returncode == 0, told
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_nodes_by_torchrun(common: list[str], alone: Path, tmp_path: Path) -> None:
    port = free_port()
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    start += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    run = [str(ROOT / "scripts" / "train.py"), *common, "trainer=ddp", "trainer.nodes=2", "trainer.devices=1"]
    commands = [[*start, f"--node-rank={rank}", *run, "hydra.run.dir=run"] for rank in (0, 1)]
    nodes(commands, [{}, {}], tmp_path)
    assert_like(tmp_path / "run", alone)
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


@pytest.mark.slow
def test_two_nodes_by_slurm(common: list[str], alone: Path, tmp_path: Path) -> None:
    """With the variables that srun sets."""
    given = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mirror", "SLURM_NTASKS": "2", "SLURM_NNODES": "2",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    run = [sys.executable, str(ROOT / "scripts" / "train.py"), *common, "trainer=ddp", "trainer.nodes=2"]
    run += ["trainer.devices=1", "hydra.run.dir=run"]
    environments = [{**given, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)]
    nodes([run, run], environments, tmp_path)
    assert_like(tmp_path / "run", alone)
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


@pytest.mark.slow
def test_best_weights_under_ddp(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    common = [
        "model=bert",
        f"model.path={tiny_bert}",
        "data.path=texts.txt",
        "batch.size=16",
        "trainer.accelerator=cpu",
    ]
    common += ["trainer=ddp", "trainer.devices=2", "trainer.progress=false", f"eval.data_dir={eval_dir}"]
    common += ["trainer.precision=fp32"]
    content = go("train.py", tmp_path, *common, "select=best", "eval.every=3", "optim.lr=1e-3", "hydra.run.dir=run")
    assert content["status"] == "finished"
    with (tmp_path / "run" / "curve" / "metrics.csv").open(encoding="utf-8") as file:
        watched = [float(row["val/stsb-dev"]) for row in csv.DictReader(file) if row["val/stsb-dev"]]
    assert len(watched) == 5
    # To one point, as the vectors are measured in batches of another shape.
    assert content["scores"]["tuned"]["stsb-dev"]["all"] == pytest.approx(max(watched), abs=1)


@pytest.mark.slow
def test_pretraining_in_two_processes(tmp_path: Path) -> None:
    """Two devices with half of each batch learn what one learns: exactly, and in bf16 but for rounding."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    common = [
        "data.path=texts.txt", "model.hidden=32", "model.intermediate=64", "model.layers=2", "model.heads=2",
        "tokenizer.vocab_size=150", "batch.tokens=300", "batch.max_tokens=32", "held_out.texts=20",
        "held_out.every=10", "trainer.accelerator=cpu", "trainer.max_steps=10", "trainer.progress=false",
        "bag_of_words=1", "trainer.precision=fp32",
    ]  # fmt: skip
    two_devices, bf16 = ["trainer=ddp", "trainer.devices=2"], "trainer.precision=bf16"
    one = go("pretrain.py", tmp_path, *common, "hydra.run.dir=one")
    two = go("pretrain.py", tmp_path, *common, *two_devices, "hydra.run.dir=two")
    assert two["perplexity"]["10"] == pytest.approx(one["perplexity"]["10"], rel=1e-4)
    vectors = [MirrorEncoder.load(tmp_path / name / "model", "mean").encode(SENTENCES[:8]) for name in ("one", "two")]
    torch.testing.assert_close(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), atol=1e-4, rtol=1e-3)
    go("pretrain.py", tmp_path, *common, bf16, "hydra.run.dir=rounded")
    go("pretrain.py", tmp_path, *common, *two_devices, bf16, "hydra.run.dir=shared")
    assert_rounded(tmp_path / "shared", tmp_path / "rounded", tmp_path / "one", encoder="model")
