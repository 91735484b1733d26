"""W&B's own agent runs a sweep of ``scripts/train.py``, against a stand-in of its server."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror import MirrorError
from mirror.cli.agent import PARAMETERS
from tests.conftest import ROOT, SENTENCES
from tests.helpers import go, metrics
from tests.wandb_server import PROJECT, SWEEP, TEAM, wandb_server

pytest.importorskip("wandb")

POINTS: list[dict[str, Any]] = [
    {"loss.temperature": 0.05, "trainer.max_epochs": 1},
    {"loss.temperature": 0.2, "trainer.max_epochs": 2},
    {"loss.temperature": 1.0, "trainer.max_epochs": 100_000},
]
LAST = len(POINTS)
SECRETS = ("sesame-key-" + "0" * 40, "sesame-token")


def scored(run: int, history: list[dict[str, Any]]) -> bool:
    """The last run is given up at its first score."""
    return run == LAST and any("val/stsb-dev" in line for line in history)


@pytest.mark.slow
def test_sweep_by_an_agent(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """The runs get their parameters and are named by them; scores arrive over the steps; what the sweep gives up ends
    as stopped; and neither the key nor anything else of the environment is sent."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "${args_no_hyphens}", "logger=wandb",
        f"model.path={tiny_bert}", "data.path=texts.txt", "data.size=48", "batch.size=16", "trainer=cpu", "eval=stsb",
        f"eval.data_dir={eval_dir}", "eval.curve=stsb-dev", "eval.every=2", "optim.lr=1e-3",
    ]  # fmt: skip
    sweep = {
        "project": PROJECT,
        "method": "grid",
        "metric": {"name": "val/stsb-dev", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 1},
        "parameters": {"loss.temperature": {"values": [0.05, 0.2, 1.0]}},
        "command": command,
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    wandb = str(Path(sys.executable).parent / "wandb")
    with wandb_server(POINTS, scored) as server:
        environment = os.environ | {
            "WANDB_BASE_URL": server.address,
            "WANDB_API_KEY": SECRETS[0],
            "HF_TOKEN": SECRETS[1],
            "HOME": str(tmp_path / "home"),
        }
        for line in ([wandb, "sweep", "sweep.yaml"], [wandb, "agent", f"{TEAM}/{PROJECT}/{SWEEP}"]):
            done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert "locked" not in done.stderr
    assert server.names == {
        "run1": "temperature=0.05,max_epochs=1",
        "run2": "temperature=0.2,max_epochs=2",
        "run3": "temperature=1.0,max_epochs=100000",
    }
    assert server.ends == {"run1": 0, "run2": 0, "run3": 255}  # the last one is shown as stopped, not as failed
    found = {run["config"]["logger"]["name"]: run for run in map(metrics, (tmp_path / "outputs" / "train").iterdir())}
    for number, point in enumerate(POINTS, start=1):
        run, config = found[server.names[f"run{number}"]], server.configs[f"run{number}"]
        assert {name: config[name] for name in point} == point
        assert config["logger.choices.eval"] == "stsb"
        steps = [line["trainer/global_step"] for line in server.history[f"run{number}"]]
        assert steps == sorted(steps)
        if number < LAST:
            assert run["status"] == "finished"
            curve = [line["val/stsb-dev"] for line in server.history[f"run{number}"] if "val/stsb-dev" in line]
            assert len(curve) == (2 if number == 1 else 3)  # at steps 2 and 3; at 2, 4 and 6
            summary = server.summaries[f"run{number}"]
            assert summary["tuned/stsb-test/all"] == pytest.approx(run["scores"]["tuned"]["stsb-test"]["all"])
            assert summary["val/stsb-dev"] == curve[-1]
        else:
            assert (run["status"], run["error"]) == ("interrupted", "stopped by SIGTERM")
    sent = "\n".join([*server.sent, *(body.decode("utf-8", "replace") for body in server.files.values())])
    for secret in SECRETS:
        assert secret not in sent
    for name in ("WANDB_API_KEY", "HF_TOKEN", "PYTHONPATH"):
        assert name not in sent


def test_agent_sees_the_signal() -> None:
    """It takes every status above 0 for a failure, and stops after a few: what Hyperband gives up is none."""
    code = "import signal; from mirror.cli.agent import end_by; end_by(signal.SIGTERM); print('went on')"
    environment = {name: value for name, value in os.environ.items() if name != PARAMETERS}
    for variables, status, said in (({PARAMETERS: "a"}, -signal.SIGTERM, ""), ({}, 0, "went on\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (status, said)


def test_seeds_in_an_agents_run(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All would be written into one run of W&B."""
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    with pytest.raises(MirrorError, match=r"WANDB_RUN_ID.*make seed one of"):
        go(tiny_bert, tmp_path / "run", "logger=wandb", "logger.mode=offline", "seeds=2")
