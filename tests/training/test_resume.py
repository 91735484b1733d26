"""A run that was stopped, or killed, ends with the weights of one that never stopped."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror import MirrorEncoder, MirrorError
from mirror.config import Precision, TrainerConfig
from mirror.config.compose import compose, resumed
from mirror.losses.infonce import info_nce
from mirror.runs.record import METRICS, by_step
from mirror.training.hardware import Hardware
from mirror.training.module import MirrorModule
from mirror.training.resume import interrupted_run
from mirror.training.run import train
from mirror.training.trainer import build_trainer
from tests.conftest import ROOT, SENTENCES, files_no_larger_than

SMALL = [
    "eval=none", "data.size=60", "batch.size=16", "schedule=linear", "optim.lr=1e-3", "schedule.warmup_steps=3",
    "trainer.accelerator=cpu", "trainer.progress=false", "trainer.max_epochs=3", "checkpoint_every=5",
    "trainer.precision=fp32",
]  # fmt: skip
"""Four steps an epoch, the last of a smaller batch; twelve in all."""


@pytest.fixture
def options(tiny_bert: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    return [f"model.path='{tiny_bert}'", f"data.path='{path}'", *SMALL]


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = MirrorEncoder.load(folder / "encoder").backbone.state_dict()
    return state


def assert_same(a: Path, b: Path) -> None:
    """Bit for bit, and the same losses on the way."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert by_step(a) == by_step(b)
    assert metrics(a)["loss"] == metrics(b)["loss"]
    assert metrics(a)["steps"] == metrics(b)["steps"]


def whole(options: list[str], folder: Path) -> Path:
    folder.mkdir()
    train(compose("train", options), folder)
    return folder


def stopped(options: list[str], folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped when it had taken ``step`` steps."""

    def stop(self: MirrorModule, *arguments: Any) -> None:
        if self.global_step == step:
            raise KeyboardInterrupt

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(MirrorModule, "on_train_batch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(compose("train", options), folder)
    assert metrics(folder)["status"] == "interrupted"
    assert not (folder / "encoder").exists()
    return folder


def go_on(folder: Path, *overrides: str) -> None:
    train(resumed("train", folder, [f"resume={folder}", *overrides]), folder)
    assert metrics(folder)["status"] == "finished"
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "extra",
    [[], ["aug=drophead"], ["batch.micro=3"], ["batch.workers=2"], ["trainer.precision=bf16"]],
    ids=["dropout", "drophead", "micro", "workers", "bf16"],
)
def test_stopped_anywhere(
    extra: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within an epoch, at its end, one step before the run's end."""
    expected = whole([*options, *extra], tmp_path / "whole")
    assert len(by_step(expected)) == 12
    for step in (1, 6, 8, 11) if not extra else (6,):
        folder = stopped([*options, *extra], tmp_path / f"stopped-{step}", step, monkeypatch)
        assert interrupted_run(folder).steps == step
        go_on(folder)
        assert_same(folder, expected)


@pytest.mark.parametrize("step", [6, 8, 11])
def test_killed_after_a_checkpoint(
    step: int, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: the newest checkpoint is one that was written by the clock."""
    expected = whole(options, tmp_path / "whole")
    folder = stopped(options, tmp_path / "stopped", step, monkeypatch)
    (folder / "checkpoints" / f"step={step}.ckpt").unlink()
    assert interrupted_run(folder).steps == step // 5 * 5
    go_on(folder)
    assert_same(folder, expected)


def test_stopped_within_a_step(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C waits for the end of the step, so the checkpoint holds whole steps; afterwards it is as it was."""
    expected = whole(options, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    calls = 0

    def seventh_is_stopped(*arguments: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 7:
            signal.raise_signal(signal.SIGINT)
        return info_nce(*arguments, **settings)

    folder = tmp_path / "stopped"
    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("mirror.losses.infonce.info_nce", seventh_is_stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(compose("train", options), folder)
    assert interrupted_run(folder).steps == calls == 7
    assert signal.getsignal(signal.SIGINT) is handler
    go_on(folder)
    assert_same(folder, expected)
    assert signal.getsignal(signal.SIGINT) is handler


def test_stopped_twice(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time in the middle of a step, of which nothing may be kept."""
    expected = whole(options, tmp_path / "whole")
    folder = stopped(options, tmp_path / "stopped", 3, monkeypatch)

    calls = 0

    def stop(*arguments: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return info_nce(*arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("mirror.losses.infonce.info_nce", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            go_on(folder)
    first = metrics(folder)["earlier_seconds"]
    assert first > 0
    assert interrupted_run(folder).steps == 5
    go_on(folder)
    assert metrics(folder)["earlier_seconds"] > first
    assert_same(folder, expected)


def test_time_of_a_killed_run_counts(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves no total: the run is taken to have lasted until its last checkpoint."""
    folder = stopped(options, tmp_path / "stopped", 6, monkeypatch)
    content = metrics(folder)
    del content["seconds"]["total"]
    content["started"] = datetime.fromtimestamp(
        interrupted_run(folder).checkpoint.stat().st_mtime - 100, UTC
    ).isoformat()
    (folder / METRICS).write_text(json.dumps(content), encoding="utf-8")
    go_on(folder)
    assert metrics(folder)["earlier_seconds"] == pytest.approx(100, abs=0.1)


def test_bar_of_a_run_that_goes_on(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = stopped(options, tmp_path / "stopped", 7, monkeypatch)
    go_on(folder, "trainer.progress=true")
    shown = capfd.readouterr().out
    assert "8/12 [" in shown
    assert "12/12 [" in shown


def test_best_weights_survive(
    options: list[str], eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*options, "select=best", f"eval.data_dir='{eval_dir}'", "eval.every=2"]
    expected = whole(options, tmp_path / "whole")
    folder = stopped(options, tmp_path / "stopped", 7, monkeypatch)
    (folder / "checkpoints" / "step=7.ckpt").unlink()
    go_on(folder)
    assert_same(folder, expected)
    assert not (folder / "best").exists()


def test_long_corpus(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that stay in their file make the run of texts in memory, and one that goes on meets the very same batch."""
    expected = whole(options, tmp_path / "short")
    monkeypatch.setattr("mirror.data.texts.MAX_IN_MEMORY", 50)
    assert_same(whole(options, tmp_path / "whole"), expected)
    folder = stopped(options, tmp_path / "stopped", 7, monkeypatch)
    go_on(folder)
    assert_same(folder, expected)


def test_a_run_may_be_made_longer(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped([*options, "schedule=constant"], tmp_path / "stopped", 7, monkeypatch)
    go_on(folder, "trainer.max_epochs=4")
    assert_same(folder, whole([*options, "schedule=constant", "trainer.max_epochs=4"], tmp_path / "whole"))


def test_other_texts_at_the_same_path(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(options, tmp_path / "run", 7, monkeypatch)
    texts = tmp_path / "texts.txt"
    original = texts.read_text(encoding="utf-8")
    texts.write_text("\n".join(reversed(SENTENCES)), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(MirrorError, match="is not the one that the run began with"):
            go_on(folder)
    texts.write_text(original, encoding="utf-8")
    go_on(folder)


def test_refuses(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(options, tmp_path / "run", 7, monkeypatch)
    with pytest.raises(MirrorError, match=r"batch\.size=8 cannot be changed by resume="):
        resumed("train", folder, [f"resume={folder}", "batch.size=8"])
    newest = folder / "checkpoints" / "step=7.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(MirrorError, match=r"step=7\.ckpt is damaged: delete it to go on from the one before"):
        go_on(folder)
    newest.unlink()
    (before,) = (folder / "checkpoints").glob("*.ckpt")
    whole = before.read_bytes()
    before.write_bytes(whole[:1000])
    with pytest.raises(MirrorError, match=r"\.ckpt is damaged: start the run anew"):
        go_on(folder)
    before.write_bytes(whole)
    go_on(folder)
    with pytest.raises(MirrorError, match="has no checkpoint"):
        go_on(folder)


def test_loss_not_finite_leaves_no_checkpoint_of_it(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def seventh_is_nan(*arguments: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return info_nce(*arguments, **settings) * (float("nan") if calls == 7 else 1)

    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("mirror.losses.infonce.info_nce", seventh_is_nan)
        with pytest.raises(MirrorError, match="loss is nan at step 7"):
            train(compose("train", options), tmp_path / "run")
    assert interrupted_run(tmp_path / "run").steps == 5
    go_on(tmp_path / "run")


def starts(folder: Path) -> int:
    """How often a run has begun to train."""
    log = folder / "train.log"
    return log.read_text(encoding="utf-8").count("training on") if log.exists() else 0


def kill_and_go_on(
    start: Callable[[list[str]], Any], run: str, options: list[str], kills: int, seconds: float, seed: int
) -> list[int]:
    """Start a run, kill it with signal 9 after a random part of ``seconds`` of training, go on, kill it again, …, and
    let it end. Returns the steps that its checkpoints held; 0 is a run that had none and began anew."""
    rng, held = random.Random(seed), list[int]()
    folder = Path(run)
    command = [*options, f"hydra.run.dir={run}"]
    while True:
        process = start(command)
        if len(held) < kills:
            begun = starts(folder) + 1
            while process.poll() is None and starts(folder) < begun:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, seconds))
            process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "encoder").exists():
            return held
        try:
            held.append(interrupted_run(folder).steps)
            command = [f"resume={run}"]
        except MirrorError:
            held.append(0)
            folder.rename(f"{run}-{len(held)}")
            command = [*options, f"hydra.run.dir={run}"]


@pytest.mark.slow
def test_killed_at_random(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By signal 9, from the command line."""
    monkeypatch.chdir(tmp_path)
    options = [option.replace("'", "") for option in options] + ["trainer.max_epochs=25", "checkpoint_every=3"]

    def start(arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    assert kill_and_go_on(start, "whole", options, kills=0, seconds=0, seed=0) == []
    seconds = metrics(tmp_path / "whole")["seconds"]["train"]
    assert len(kill_and_go_on(start, "killed", options, kills=3, seconds=seconds / 2, seed=0)) >= 1
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_checkpoints_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written beside their place, and need no room in the system's folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-such-folder"))
    place = tmp_path / "checkpoints" / "step=1.ckpt"
    files = build_trainer(TrainerConfig(progress=False), Hardware("cpu", Precision.fp32), [], []).strategy
    with files_no_larger_than(10_000), pytest.raises(OSError, match="too large"):
        files.checkpoint_io.save_checkpoint({"weights": torch.zeros(5000)}, place)
    assert list(place.parent.iterdir()) == []
    files.checkpoint_io.save_checkpoint({"weights": torch.ones(5000)}, place)
    assert torch.load(place)["weights"].sum() == 5000
    assert list(place.parent.iterdir()) == [place]


def test_what_resume_reads_is_checked(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(options, tmp_path / "run", 6, monkeypatch)
    good = (folder / "metrics.json").read_text(encoding="utf-8")
    content = json.loads(good)
    damaged: list[Any] = [
        [],
        None,
        {**content, "started": 3},
        {**content, "seconds": {"total": "long"}},
        {name: value for name, value in content.items() if name != "started"},
        {name: value for name, value in content.items() if name != "seconds"},
    ]
    for damage in damaged:
        (folder / "metrics.json").write_text(json.dumps(damage), encoding="utf-8")
        with pytest.raises(MirrorError, match=r"metrics\.json is missing or damaged.*: start a new run\.$"):
            go_on(folder)
    (folder / "metrics.json").write_text(good, encoding="utf-8")
    with pytest.raises(MirrorError, match=r"is no run of scripts/pretrain\.py"):
        resumed("pretrain", folder, [f"resume={folder}"])
    path = interrupted_run(folder).checkpoint
    checkpoint = torch.load(path, weights_only=True)
    lacking: dict[str, Any] = {"optimizer_states": [], "state_dict": {}}
    for name, value in lacking.items():
        torch.save({**checkpoint, name: value}, path)
        with pytest.raises(MirrorError, match="is damaged"):
            go_on(folder)
    torch.save({**checkpoint, "global_step": 500}, path)
    with pytest.raises(MirrorError, match="500 steps, more than the 12"):
        go_on(folder)
