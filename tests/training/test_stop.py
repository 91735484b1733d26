"""A run that is stopped outside its training loop goes on too, and a signal is told by the exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import compose, resumed
from mirror.training.measure import Measurements
from mirror.training.run import Run, train
from tests.conftest import ROOT, SENTENCES, files_no_larger_than

SMALL = [
    "data.size=60", "batch.size=16", "optim.lr=1e-3", "eval=stsb", "eval.resamples=0", "eval.geometry_every=2",
    "trainer.accelerator=cpu", "trainer.precision=fp32", "trainer.progress=false",
]  # fmt: skip
"""Four steps; no checkpoint before the last."""


@pytest.fixture
def options(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    return [f"model.path='{tiny_bert}'", f"data.path='{path}'", f"eval.data_dir='{eval_dir}'", *SMALL]


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


def run(options: list[str], folder: Path) -> Path:
    folder.mkdir()
    train(compose("train", options), folder)
    return folder


def assert_same(folder: Path, expected: Path) -> None:
    ours, theirs = metrics(folder), metrics(expected)
    assert ours["status"] == "finished"
    for key in ("scores", "loss", "steps", "geometry_curve", "cosines", "comparisons"):
        assert ours[key] == theirs[key], key
    states = [MirrorEncoder.load(place / "encoder").state_dict() for place in (folder, expected)]
    assert all(torch.equal(weights, states[1][name]) for name, weights in states[0].items())
    names = {path.name for path in expected.iterdir()} | {"curve"}
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize("extra", [[], ["select=best", "eval.every=2"]], ids=["last", "best"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("phase", ["tuned", "save", "report"])
def test_stopped_in_a_phase_after_the_training(
    phase: str, when: str, extra: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run([*options, *extra], tmp_path / "whole")
    owner = Run if phase == "save" else Measurements
    real: Callable[..., None] = getattr(owner, phase)

    def stop(self: Any, *arguments: Any) -> None:
        if when == "after":
            real(self, *arguments)
        raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        patched.setattr(owner, phase, stop)
        with pytest.raises(KeyboardInterrupt):
            run([*options, *extra], folder)
    assert metrics(folder)["status"] == "interrupted"
    trained: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr("mirror.training.module.MirrorModule.training_step", lambda *_: trained.append(1))
        train(resumed("train", folder, [f"resume={folder}"]), folder)
    assert not trained
    assert_same(folder, expected)


def test_a_full_disk_at_the_encoder_s_save_loses_nothing(options: list[str], tmp_path: Path) -> None:
    expected = run(options, tmp_path / "whole")
    folder = tmp_path / "full"
    real = Run.save

    def save(self: Run, seed: int) -> None:
        with files_no_larger_than(20_000):
            real(self, seed)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "save", save)
        with pytest.raises(MirrorError, match="cannot be written"):
            run(options, folder)
    assert not (folder / "encoder").exists()
    train(resumed("train", folder, [f"resume={folder}"]), folder)
    assert_same(folder, expected)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_in_one_sentence(number: int, status: int, options: list[str], tmp_path: Path) -> None:
    """In the training loop, where the step is finished and a checkpoint written first."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *options]
    command += ["eval=none", "trainer.max_epochs=100000", "hydra.run.dir=run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    curve = tmp_path / "run" / "curve" / "metrics.csv"
    for _ in range(600):
        time.sleep(0.2)
        if curve.exists() and curve.stat().st_size > 100:
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert "interrupted: go on with mirror-train resume=" in said
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    assert list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
