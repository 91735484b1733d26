"""A sweep on a real SLURM; ``tests/slurm.sh`` starts one of one node."""

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.runs.registry import runs_in
from tests.conftest import ROOT, SENTENCES


def slurm_answers() -> bool:
    try:
        return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.slow
def test_sweep_on_slurm(tiny_bert: Path, tmp_path: Path) -> None:
    """Each run is a job of its own; one that fails is listed, and a second start submits nothing."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if not slurm_answers():
        pytest.skip("no SLURM answers here: start one with tests/slurm.sh")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    line = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "-m", f"model.path={tiny_bert}", "data.path=texts.txt",
        "eval=none", "data.size=48", "batch.size=16", "trainer=cpu", "optim.lr=1e-3", "seed=1,2",
        "loss.temperature=0,0.1", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=null", "hydra.launcher.timeout_min=10",
    ]  # fmt: skip

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=500)

    first = start()
    assert first.returncode == 1, first.stderr
    assert "error: 2 of 4 runs did not finish" in first.stderr
    assert first.stderr.count("loss.temperature=0.0 is out of range") == 2
    runs = runs_in(tmp_path / "outputs/train-sweep/unnamed")
    assert sorted(run["seed"] for run in runs.values() if run["status"] == "finished") == [1, 2]
    jobs = {path.name.partition("_")[0] for path in tmp_path.rglob(".submitit/*") if path.is_dir()}
    assert len(jobs) == 1  # one array

    again = start()
    assert "2 finished already, 2 failed earlier, 0 to run" in again.stderr
    assert {path.name.partition("_")[0] for path in tmp_path.rglob(".submitit/*") if path.is_dir()} == jobs
