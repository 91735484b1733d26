"""Ctrl-C and SIGTERM at any moment of a command: one sentence, 130 or 143, a record that is true."""

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

from mirror.encoder.encoder import MirrorEncoder
from mirror.runs import stop
from mirror.training import run as training_run
from mirror.training.measure import Measurements
from mirror.training.resume import Checkpointer
from mirror.training.run import Run
from mirror.training.trainer import remove_checkpoints
from tests.commands import SMALL, Command
from tests.conftest import ROOT, SENTENCES

TERMINATED = 128 + signal.SIGTERM


def send(number: int = signal.SIGTERM) -> None:
    """To this very thread, whose handler has run when this returns: none is left for pytest itself."""
    signal.raise_signal(number)


def after(real: Callable[..., Any], number: int = signal.SIGTERM) -> Callable[..., Any]:
    """A function whose end is followed by a signal."""

    def call(*arguments: Any, **settings: Any) -> Any:
        result = real(*arguments, **settings)
        send(number)
        return result

    return call


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def options(tiny_bert: Path) -> list[str]:
    return [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL]


def test_a_second_sigterm_adds_nothing() -> None:
    """GNU timeout sends one to the command and one to its group."""
    with stop.stoppable():
        with pytest.raises(KeyboardInterrupt):
            send()
        send()  # while the record is written
        assert stop.received() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # somebody at the keyboard does not want to wait
            send(signal.SIGINT)
    assert stop.received() is None


def test_a_signal_waits_while_it_is_held() -> None:
    done: list[str] = []

    def write() -> None:
        with stop.held(), stop.held():
            send()
            done.append("whole")

    with stop.stoppable():
        with pytest.raises(KeyboardInterrupt):
            write()
        write()  # what came before is on its way already
    assert done == ["whole", "whole"]


def test_the_workers_may_die_while_the_record_is_written() -> None:
    """PyTorch's handler raises an error wherever the main thread is when it hears that a worker died."""

    def died(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

    before = signal.signal(signal.SIGCHLD, died)
    try:
        with stop.stoppable():
            with pytest.raises(KeyboardInterrupt):
                send()
            send(signal.SIGCHLD)
        with pytest.raises(RuntimeError):  # the next run of this process is told of its own workers
            send(signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_a_shell_has_ignored_stays_ignored() -> None:
    """As for a command that a script starts in its background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop.stoppable():
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(("number", "by"), [(signal.SIGINT, "the user"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("phase", ["check_parts", "read", "load"])
def test_before_the_training(
    phase: str,
    number: int,
    by: str,
    options: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also before there is a record."""
    owner = training_run if phase == "check_parts" else Run
    monkeypatch.setattr(owner, phase, after(getattr(owner, phase), number))
    result = command("train", *options, "hydra.run.dir=run")
    assert result.code == 128 + number
    assert "Traceback" not in result.err
    assert "interrupted: there is no checkpoint to go on from, start again" in result.err
    assert (metrics(tmp_path / "run")["status"], metrics(tmp_path / "run")["error"]) == (
        "interrupted",
        f"stopped by {by}",
    )


def test_what_a_library_makes_of_it(
    options: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(self: Run) -> None:
        try:
            send()
        except KeyboardInterrupt:
            raise RuntimeError("a worker was killed") from None

    monkeypatch.setattr(Run, "load", load)
    result = command("train", *options, "hydra.run.dir=run")
    assert result.code == TERMINATED
    assert "Traceback" not in result.err
    assert "Error executing" not in result.err
    assert metrics(tmp_path / "run")["status"] == "interrupted"


def test_during_the_last_checkpoint(
    options: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is written, and the signal is not forgotten."""
    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "_save_topk_checkpoint", after(Checkpointer._save_topk_checkpoint))
        result = command("train", *options, "hydra.run.dir=run")
    assert result.code == TERMINATED
    assert f"interrupted: go on with mirror-train resume={tmp_path / 'run'}" in result.err
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    assert not (tmp_path / "run" / "encoder").exists()
    assert command("train", "resume=run").code == 0
    assert metrics(tmp_path / "run")["status"] == "finished"


def test_between_the_last_checkpoint_and_the_record(
    options: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without checkpoints a run cannot go on: it is finished first."""
    monkeypatch.setattr(training_run, "remove_checkpoints", after(remove_checkpoints))
    result = command("train", *options, "hydra.run.dir=run")
    assert result.code == TERMINATED
    assert f"interrupted: the run in {tmp_path / 'run'} was finished already" in result.err
    assert metrics(tmp_path / "run")["status"] == "finished"


def test_several_seeds_do_not_go_on(
    options: list[str],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Measurements, "report", after(Measurements.report))
    result = command("train", *options, "seeds=2", "hydra.run.dir=run")
    assert result.code == TERMINATED
    assert "interrupted: there is no checkpoint to go on from, start again" in result.err


def test_a_sweep(
    options: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runs after the one that was stopped do not begin, and the one before it is kept."""
    with monkeypatch.context() as patched:
        real = Measurements.tuned

        def second(self: Measurements, encoder: MirrorEncoder, seed: int) -> None:
            real(self, encoder, seed)
            if seed == 2:
                send()

        patched.setattr(Measurements, "tuned", second)
        result = command("train", "-m", *options, "seed=1,2,3")
    assert result.code == TERMINATED
    assert "interrupted: start the sweep again to go on, what is finished in" in result.err
    states = [metrics(path.parent)["status"] for path in (tmp_path / "outputs").rglob("metrics.json")]
    assert sorted(states) == ["finished", "interrupted"]
    result = command("train", "-m", *options, "seed=1,2,3")
    assert result.code == 0
    assert "1 finished already" in result.err
    assert "2 to run" in result.err


@pytest.mark.slow
def test_timeout_and_the_workers_that_load_batches(options: list[str], tmp_path: Path) -> None:
    """SIGTERM twice, and to the whole group: the workers die of it, the step and its checkpoint are finished."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *options, "batch.workers=2"]
    run = subprocess.Popen(
        [*line, "trainer.max_epochs=100000", "hydra.run.dir=run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        curve = tmp_path / "run" / "curve" / "metrics.csv"
        while run.poll() is None and not (curve.exists() and curve.read_text(encoding="utf-8").count("\n") > 10):
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        os.killpg(run.pid, signal.SIGTERM)
        _, printed = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == TERMINATED, printed
    assert "Traceback" not in printed
    assert f"interrupted: go on with mirror-train resume={tmp_path / 'run'}" in printed
    assert metrics(tmp_path / "run")["status"] == "interrupted"


def test_while_torch_is_imported(tmp_path: Path) -> None:
    """Half imported, it would tell statistics of its own at the exit."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\nclass Finder:\n    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch._subclasses.functional_tensor':\n            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    script = [sys.executable, str(ROOT / "scripts" / "search.py"), "where", "encoder=x"]
    ended = subprocess.run(script, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_while_modules_are_imported(tmp_path: Path) -> None:
    """Libraries make errors of their own of an exception in the middle of their imports."""
    (tmp_path / "hydra.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    os.getpid()\n"
        "except KeyboardInterrupt as error:\n    raise RuntimeError from error\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    script = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    ended = subprocess.run(script, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")
