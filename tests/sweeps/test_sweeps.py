"""Sweeps: which runs are the same, what a second start runs, what is said of those that fail.

The runs are stand-ins that record their settings and end; only the slow tests train.
"""

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from mirror.config import TrainConfig, plain
from mirror.config.compose import CONF, compose, run_id
from mirror.errors import MirrorError, PrunedError
from mirror.runs.record import RunRecord
from mirror.runs.registry import identity, read_run, runs_in, usual_seconds
from tests.commands import Command, assert_refused
from tests.conftest import ROOT, SENTENCES

POOL = Path("outputs/train-sweep")
SWEEPS = sorted({path.stem for path in (CONF / "sweep").glob("*.yaml")} - {"optuna"})


class Runs:
    """Stands for ``mirror.training.run``: notes what is run, and fails or stops where told to."""

    def __init__(self) -> None:
        self.configs: list[TrainConfig] = []
        self.fail: Callable[[TrainConfig], BaseException | None] = lambda config: None

    def train(self, config: TrainConfig, folder: Path, **_: Any) -> None:
        self.configs.append(config)
        with RunRecord(folder, plain(config)):
            if error := self.fail(config):
                raise error

    def seen(self, value: Callable[[TrainConfig], Any]) -> list[Any]:
        """What was run since the last look."""
        values = [value(config) for config in self.configs]
        self.configs.clear()
        return values


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in, module = Runs(), ModuleType("mirror.training.run")
    module.train = stand_in.train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mirror.training.run", module)
    return stand_in


def point(config: TrainConfig) -> tuple[float, int]:
    return config.loss["temperature"], config.seed


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        (["logger=tensorboard", "logger.group=x", "trainer.progress=false", "batch.workers=2"], True),
        (["retry_failed=true", "retry_changed=true", "max_runs=5", "checkpoint_every=7", "trial='a#b#0'"], True),
        (["model.pooling=cls", "seed=42"], True),  # what holds anyway
        (["seed=1"], False),
        (["aug.unit=word"], False),
        (["eval.sets=[sts12]"], False),
        (["trainer.max_epochs=2"], False),
        (["data.size=null"], False),
    ],
)
def test_identity(overrides: list[str], same: bool) -> None:
    assert (identity(plain(compose("train", overrides))) == identity(plain(compose("train", [])))) is same


def test_folder_is_named_after_what_the_run_will_record() -> None:
    config = compose("train", ["task=word", "aug=drophead", "model.pooling=max", "optim.lr=1e-3"])
    assert run_id(OmegaConf.structured(config)) == identity(plain(config))


def test_grid_runs_once(command: Command, runs: Runs) -> None:
    grid = ["sweep=temperature", "loss.temperature=0.02,0.04", "seed=1,2"]
    result = command("train", *grid)
    assert result.code == 0, result.err
    assert runs.seen(point) == [(0.02, 1), (0.02, 2), (0.04, 1), (0.04, 2)]
    folders = sorted((POOL / "temperature").glob("*/metrics.json"))
    assert len(folders) == 4
    names = [path.parent.name for path in folders]
    assert {name.rpartition("-")[2] for name in names} == set(runs_in(POOL / "temperature"))
    assert names[0].startswith("temperature=0.02,seed=1-")
    told = [line for line in result.err.splitlines() if line.startswith("run ")]
    assert told[0] == "run 1 of 4: loss.temperature=0.02 seed=1"  # the axes alone
    assert told[3] == "run 4 of 4, about 1 min left: loss.temperature=0.04 seed=2"
    assert result.err.count("  finished in ") == 4
    assert "#0" not in result.err
    assert "4 of 4 runs finished" in result.err
    assert f"scripts/report.py {POOL / 'temperature'}" in result.err

    again = command("train", *grid)
    assert (again.code, runs.seen(point)) == (0, [])
    assert "4 finished already, 0 failed earlier, 0 to run" in again.err


def test_more_axes_and_other_words_for_the_same(command: Command, runs: Runs) -> None:
    command("train", "-m", "loss.temperature=0.1,0.2")
    assert runs.seen(point) == [(0.1, 42), (0.2, 42)]
    more = command("train", "-m", "seed=42,7", "loss.temperature=0.20,0.1,0.100", "aug=mirror", "logger=tensorboard")
    assert runs.seen(point) == [(0.2, 7), (0.1, 7)]
    told = [line.partition(": ")[2] for line in more.err.splitlines() if line.startswith("run ")]
    assert told == ["seed=7 loss.temperature=0.2", "seed=7 loss.temperature=0.1"]  # the sweep's axes, not these runs'


def test_recognised_in_a_folder_of_another_name(command: Command, runs: Runs) -> None:
    command("train", "-m", "seed=1,2")
    runs.seen(point)
    first = next((POOL / "unnamed").glob("*/metrics.json")).parent
    first.rename(first.with_name("the best"))
    assert command("train", "-m", "seed=1,2").code == 0
    assert runs.seen(point) == []


@pytest.mark.parametrize("left", ["running", "interrupted", "half", "nothing"])
def test_run_that_did_not_end_runs_again(command: Command, runs: Runs, left: str) -> None:
    command("train", "-m", "seed=1,2,3")
    runs.seen(point)
    path = next(path for path in (POOL / "unnamed").glob("*/metrics.json") if '"seed": 2' in path.read_text())
    content = json.loads(path.read_text())
    content["status"] = left
    path.write_text(json.dumps(content)[: 100 if left == "half" else None])
    if left == "nothing":
        path.unlink()
    (path.parent / "encoder").mkdir()
    assert command("train", "-m", "seed=1,2,3").code == 0
    assert runs.seen(point) == [(0.04, 2)]
    assert not (path.parent / "encoder").exists()  # nothing of the first attempt stays


@pytest.mark.parametrize("there", ["", ".hydra/config.yaml", "metrics.json"])
def test_folder_of_others_is_never_emptied(command: Command, runs: Runs, there: str) -> None:
    """Wherever the sweep is sent, and though it has names there that a run has too."""
    mine = Path("data/encoder/mine")
    for path in (mine, *([mine.parents[1] / there] if there else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("model: {}")
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    result = command("train", "-m", "seed=1,2", "hydra.sweep.dir=.", "hydra.sweep.subdir=data")
    assert_refused(result, "data, which holds", "hydra.sweep.subdir")
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == before
    assert runs.configs == []


@pytest.mark.parametrize("subdir", ["../texts.txt/x", "../data", "texts.txt/x", "/tmp", ".", ".."])
def test_runs_lie_directly_in_the_folder_of_the_sweep(command: Command, runs: Runs, subdir: str) -> None:
    """Where they are looked for; elsewhere they would be made, and then be reported as missing."""
    result = command("train", "-m", "seed=1,2", "hydra.sweep.dir=sweep", f"hydra.sweep.subdir={subdir}")
    assert_refused(result, f"hydra.sweep.subdir={subdir} is no name of a folder in sweep")
    assert runs.configs == []


@pytest.mark.parametrize("status", ["running", "failed", "interrupted", "finished"])
def test_run_with_other_settings_stays(command: Command, runs: Runs, status: str) -> None:
    """One that was stopped can go on, unless a sweep is sent into its folder."""
    command("train", "-m", "seed=1", "hydra.sweep.subdir=0")
    path = POOL / "unnamed" / "0" / "metrics.json"
    path.write_text(path.read_text().replace('"finished"', f'"{status}"'))
    (path.parent / "checkpoints").mkdir()
    assert_refused(command("train", "-m", "seed=2", "hydra.sweep.subdir=0"), "holds a run with other settings")
    assert (path.parent / "checkpoints").is_dir()


def test_notes_in_a_failed_run_stay(command: Command, runs: Runs) -> None:
    runs.fail = lambda config: MirrorError("oh")
    command("train", "-m", "seed=1")
    (folder,) = (path.parent for path in (POOL / "unnamed").glob("*/metrics.json"))
    (folder / "notes.txt").write_text("why it failed")
    runs.fail = lambda config: None
    again = ["-m", "seed=1", "retry_failed=true"]
    assert_refused(command("train", *again), f"{folder}, which holds notes.txt")
    (folder / "notes.txt").rename("notes.txt")
    assert command("train", *again).code == 0


def test_run_that_another_process_is_at(command: Command, runs: Runs) -> None:
    """Jobs of SLURM outlive a sweep that is killed: the next start neither repeats nor disturbs what they do."""
    command("train", "-m", "seed=1,2")
    runs.seen(point)
    path = next(path for path in (POOL / "unnamed").glob("*/metrics.json") if '"seed": 2' in path.read_text())
    path.write_text(path.read_text().replace('"finished"', '"running"'))
    with FileLock(path.parent / ".lock"):
        result = command("train", "-m", "seed=1,2")
        assert (runs.seen(point), read_run(path.parent) is not None) == ([], True)
    assert f"{path.parent} is left to the process that runs it" in result.err
    assert command("train", "-m", "seed=1,2").code == 0
    assert runs.seen(point) == [(0.04, 2)]


def test_run_that_another_process_begins_first(command: Command, runs: Runs) -> None:
    """As a job does that waited in a queue when its sweep was killed."""
    command("train", "-m", "seed=2,5", "hydra.sweep.dir=other")
    (other,) = Path("other").glob("seed=2-*/metrics.json")
    runs.seen(point)
    locks: list[FileLock] = []

    def first(config: TrainConfig) -> None:
        if not locks and config.seed == 1:
            locks.append(FileLock(POOL / "unnamed" / other.parent.name / ".lock"))
            (POOL / "unnamed" / other.parent.name).mkdir()
            locks[0].acquire()

    runs.fail = first
    command("train", "-m", "seed=1,2,3")
    assert runs.seen(point) == [(0.04, 1), (0.04, 3)]
    locks[0].release()
    shutil.copy(other, POOL / "unnamed" / other.parent.name)
    assert command("train", "-m", "seed=1,2,3").code == 0
    assert runs.seen(point) == []


def test_failed_runs(command: Command, runs: Runs) -> None:
    """They are listed with their reason, stop nothing, and are run again only on request."""
    errors: dict[int, BaseException] = {2: MirrorError("the loss is nan: lower it."), 3: ZeroDivisionError("oh")}
    runs.fail = lambda config: errors.get(config.seed)
    result = command("train", "-m", "seed=1,2,3,4")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert [seed for _, seed in runs.seen(point)] == [1, 2, 3, 4]
    listed = [line for line in result.err.splitlines() if line.startswith("not finished: seed=")]
    assert ["MirrorError: the loss is nan: lower it." in listed[0], "ZeroDivisionError: oh" in listed[1]] == [True] * 2
    assert "error: 2 of 4 runs did not finish" in result.err
    assert "retry_failed=true" in result.err

    runs.fail = lambda config: None
    again = command("train", "-m", "seed=1,2,3,4")
    assert (again.code, runs.seen(point)) == (1, [])
    assert "the loss is nan" in again.err
    assert command("train", "-m", "seed=1,2,3,4", "retry_failed=true").code == 0
    assert [seed for _, seed in runs.seen(point)] == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["-m", "seed=range(0,100)", "loss.temperature=0.1,0.2", "max_runs=150"], ["200 runs", "max_runs=200"]),
        (["-m", "seed=range(0,100000)"], ["100,000 runs (277 h 47 min if each took 10 s", "max_runs=100000"]),
        (["-m", "seed=range(1,1)"], ["no runs"]),
        (["-m", "loss.temprature=0.1,0.2"], ["loss.temprature", "did you mean loss.temperature?"]),
        (["-m", "temprature=0.1,0.2"], ["temprature"]),
        (["sweep=temprature"], ["temprature"]),
        (["-m", "trainer=ddp", "seed=1,2"], ["trainer=ddp", "for seed in"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused(command: Command, runs: Runs, arguments: list[str], reasons: list[str]) -> None:
    assert_refused(command("train", *arguments), *reasons)
    assert runs.configs == []


def test_large_sweep_says_how_long(command: Command, runs: Runs) -> None:
    command("train", "-m", "seed=1,2")
    for path in (POOL / "unnamed").glob("*/metrics.json"):
        content = json.loads(path.read_text())
        content["seconds"]["total"] = 90.0
        path.write_text(json.dumps(content))
    assert usual_seconds(list(runs_in(POOL / "unnamed").values())) == 90
    assert_refused(command("train", "-m", "seed=range(0,2000)"), "50 h 0 min at 90 s each")


def test_second_sweep_in_the_same_folder(command: Command, runs: Runs) -> None:
    (POOL / "unnamed").mkdir(parents=True)
    with FileLock(POOL / "unnamed" / ".lock"):
        assert_refused(command("train", "-m", "seed=1,2"), "runs in outputs/train-sweep/unnamed already")
    assert command("train", "-m", "seed=1,2").code == 0


def test_finished_run_of_others_is_never_deleted(command: Command, runs: Runs) -> None:
    command("train", "-m", "seed=1,2", "hydra.sweep.subdir=${hydra.job.num}")
    assert_refused(command("train", "-m", "seed=3,4", "hydra.sweep.subdir=${hydra.job.num}"), "other settings")
    assert [run["seed"] for run in map(read_run, sorted((POOL / "unnamed").glob("[01]"))) if run] == [1, 2]


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_folder_of_an_earlier_start_is_kept(command: Command, runs: Runs, status: str) -> None:
    """Whether it was named after the identity alone, as in earlier versions, or after other axes."""
    command("train", "-m", "loss.temperature=0.1,0.2")
    pool = POOL / "unnamed"
    for path in list(pool.glob("*/metrics.json")):
        path.parent.rename(pool / path.parent.name.rpartition("-")[2])
    old = sorted(path.parent for path in pool.glob("*/metrics.json"))
    assert {path.name for path in old} == set(runs_in(pool))
    for folder in old:
        record = (folder / "metrics.json").read_text()
        (folder / "metrics.json").write_text(record.replace('"finished"', f'"{status}"'))
    runs.seen(point)
    assert command("train", "-m", "loss.temperature=0.1,0.2", "seed=42,7").code == 0
    repeated = [] if status == "finished" else [(0.1, 42), (0.2, 42)]
    assert sorted(runs.seen(point)) == sorted([*repeated, (0.1, 7), (0.2, 7)])
    assert set(old) < {path.parent for path in pool.glob("*/metrics.json")}
    assert len(list(pool.glob("*/metrics.json"))) == 4


def test_commands_take_such_a_folder(command: Command, runs: Runs) -> None:
    """A comma in a value is a choice for Hydra, unless the value is a path."""
    command("train", "-m", "seed=1,2", "loss.temperature=0.1,0.2")
    folder = next(path.parent for path in (POOL / "unnamed").glob("*/metrics.json"))
    assert "," in folder.name
    result = command("train", f"data.path={folder}/metrics.json")
    assert result.code == 0, result.err
    assert runs.configs[-1].data.path == f"{folder}/metrics.json"


def test_interrupted_sweep(command: Command, runs: Runs) -> None:
    """One sentence, also where a library makes an error of its own of the signal."""

    def stopped(config: TrainConfig) -> BaseException | None:
        if config.seed == 2:
            signal.raise_signal(signal.SIGINT)
        return None

    runs.fail = stopped
    result = command("train", "-m", "seed=1,2,3")
    assert result.code == 130
    told = [line for line in result.err.splitlines() if line.startswith("interrupted")]
    assert told == [
        "interrupted: start the sweep again to go on, what is finished in outputs/train-sweep/unnamed is kept (1)"
    ]
    assert "Traceback" not in result.err
    states = [run["status"] for run in runs_in(POOL / "unnamed").values()]
    assert sorted(states) == ["finished", "interrupted"]


def test_code_of_ones_own_part_has_changed(command: Command, runs: Runs) -> None:
    """It is said, and the runs stay until they are asked to run again."""
    part, choice = Path("changing_part.py"), Path("conf/loss/changing.yaml")
    choice.parent.mkdir(parents=True)
    choice.write_text("_target_: changing_part.Own\n", encoding="utf-8")
    part.write_text("class Own: ...\n", encoding="utf-8")
    grid = ["--config-dir=conf", "-m", "loss=changing", "seed=1,2"]
    first = command("train", *grid)
    assert first.code == 0, first.err
    assert len(runs.seen(lambda config: config.seed)) == 2
    folders = sorted((POOL / "unnamed").glob("*/metrics.json"))

    assert "changing_part" not in command("train", *grid).err
    part.write_text("class Own: better = True\n", encoding="utf-8")
    told = command("train", *grid)
    assert (told.code, runs.seen(lambda config: config.seed)) == (0, [])
    (line,) = (line for line in told.err.splitlines() if "changing_part" in line)
    assert line.startswith("2 runs finished with other code of changing_part than there is now")
    assert "retry_changed=true" in line

    assert command("train", *grid, "retry_changed=true").code == 0
    assert runs.seen(lambda config: config.seed) == [1, 2]
    assert sorted((POOL / "unnamed").glob("*/metrics.json")) == folders
    again = command("train", *grid, "retry_changed=true")
    assert (again.code, runs.seen(lambda config: config.seed)) == (0, [])
    assert "changing_part" not in again.err


def test_group_is_the_sweep(command: Command, runs: Runs) -> None:
    command("train", "sweep=temperature", "loss.temperature=0.1", "logger=wandb")
    command("train", "seed=2", "logger=wandb")
    assert runs.seen(lambda config: config.logger.group) == ["temperature", None]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep(command: Command, runs: Runs, name: str) -> None:
    """Settings that exist, and nothing beside the axes, so that a run of it can be repeated alone."""
    assert command("train", f"sweep={name}", "data.path=texts.txt").code == 0
    found = runs.configs
    assert len({identity(plain(config)) for config in found}) == len(found) > 1
    assert OmegaConf.load(CONF / "sweep" / f"{name}.yaml").keys() == {"hydra"}


def test_grids_together(command: Command, runs: Runs) -> None:
    """The recipe itself stands in every grid of the paper's questions, and runs once."""
    command("train", "sweep=paper", "data.path=texts.txt")
    grids = OmegaConf.load(CONF / "sweep" / "paper.yaml").hydra.sweeper.grids
    sizes = [len(str(values).split(",")) for grid in grids for values in grid.values()]
    standard = plain(compose("train", ["data.path=texts.txt"]))
    # The recipe stands in each grid; and aug=none is what aug.span_k=0 is.
    assert len(runs.configs) == sum(sizes) - (len(sizes) - 1) - 1
    assert [plain(config)["loss"] for config in runs.configs].count(standard["loss"]) == len(runs.configs) - 3


def judged(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are the better the nearer their temperature is to 0.05, and take the longer the larger their batch."""

    def train(config: TrainConfig, folder: Path, **_: Any) -> None:
        runs.configs.append(config)
        with RunRecord(folder, plain(config)) as record:
            if error := runs.fail(config):
                raise error
            score = 60 - 10 * abs(math.log(config.loss["temperature"] / 0.05))
            record["scores"] = {"tuned": {"stsb-dev": {"all": score, "pairs": 9}}}
        record["seconds"] = {"train": config.batch.size / 10}
        record.write()

    monkeypatch.setattr(sys.modules["mirror.training.run"], "train", train)


SEARCH = [
    "sweep=optuna", "hydra.sweeper.trials=6", "optim.lr=1e-3", "model.pooling=mean",
    "loss.temperature=tag(log,interval(0.01,0.3))",
]  # fmt: skip


def test_search(command: Command, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    runs.fail = lambda config: MirrorError("not this one") if len(runs.configs) == 2 else None
    result = command("train", *SEARCH)
    assert result.code == 1
    assert "error: 1 trials failed" in result.err
    tried = runs.seen(lambda config: config.loss["temperature"])
    assert len(set(tried)) == 6
    assert all(0.01 <= temperature <= 0.3 for temperature in tried)
    study = optuna.load_study(study_name="stsb-dev", storage=f"sqlite:///{POOL.resolve()}/optuna/search.db")
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1
    del tried[1]
    best = min(tried, key=lambda temperature: abs(math.log(temperature / 0.05)))
    assert study.best_params["loss.temperature"] == pytest.approx(best)
    (told,) = [line for line in result.err.splitlines() if line.startswith("best: ")]
    assert f"loss.temperature={best}" in told
    lines = result.err.splitlines()
    assert any(line.startswith("trial 3 of 6") for line in lines)
    assert sum(line.startswith("trial ") for line in lines) == 6  # its outcome stands below each, once
    assert sum(line.startswith("  finished in ") for line in lines) == 5
    (repeated,) = [line for line in lines if line.startswith("the best by stsb-dev: mirror-train ")]
    assert f"loss.temperature={best}" in repeated

    study.ask()  # a search that was killed in a trial
    runs.fail = lambda config: None
    again = command("train", *SEARCH, "hydra.sweeper.trials=8")
    assert again.code == 0, again.err
    assert "5 trials in outputs/train-sweep/optuna finished already, 3 to run" in again.err
    assert len(runs.seen(point)) == 3


def test_code_of_ones_own_part_has_changed_in_a_search(
    command: Command, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a grid; where they are to run again, the study forgets what they found."""
    optuna = pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    part, choice = Path("searched_part.py"), Path("conf/loss/searched.yaml")
    choice.parent.mkdir(parents=True)
    choice.write_text("_target_: searched_part.Own\ntemperature: 0.1\n", encoding="utf-8")
    part.write_text("class Own: ...\n", encoding="utf-8")
    search = ["--config-dir=conf", *SEARCH, "loss=searched"]
    assert command("train", *search, "hydra.sweeper.trials=2").code == 0
    tried = sorted(runs.seen(point))
    part.write_text("class Own: better = True\n", encoding="utf-8")
    more = command("train", *search, "hydra.sweeper.trials=3")
    assert len(runs.seen(point)) == 1
    (line,) = (line for line in more.err.splitlines() if "searched_part" in line)
    assert line.startswith(
        "2 runs finished with other code of searched_part than there is now: kept; retry_changed=true"
    )

    assert command("train", *search, "hydra.sweeper.trials=3", "retry_changed=true").code == 0
    assert sorted(runs.seen(point)) == tried
    study = optuna.load_study(study_name="stsb-dev", storage=f"sqlite:///{POOL.resolve()}/optuna/search.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    again = command("train", *search, "hydra.sweeper.trials=3", "retry_changed=true")
    assert (again.code, runs.seen(point)) == (0, [])


@pytest.fixture
def changed(command: Command, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A search of three trials by score, one of them pruned, and of two by score and time, whose part then changes; the
    command of the first."""
    pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    name = tmp_path.name  # no module of another test, whose folder stays on the path
    part, choice = Path(f"{name}.py"), Path("conf/loss/searched.yaml")
    choice.parent.mkdir(parents=True)
    choice.write_text(f"_target_: {name}.Own\ntemperature: 0.1\n", encoding="utf-8")
    part.write_text("class Own: ...\n", encoding="utf-8")
    search = ["--config-dir=conf", *SEARCH, "loss=searched"]
    runs.fail = lambda config: PrunedError("behind") if len(runs.configs) == 2 else None
    assert command("train", *search, "hydra.sweeper.trials=3").code == 0
    assert (
        command("train", *search, "hydra.sweeper.trials=2", "hydra.sweeper.time=true", "hydra.sweeper.seed=1").code == 0
    )
    part.write_text("class Own: better = True\n", encoding="utf-8")
    return [*search, "hydra.sweeper.trials=3", "retry_changed=true"]


def trials(name: str) -> list[tuple[str, float]]:
    """State and temperature of the trials of a study."""
    optuna = pytest.importorskip("optuna")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{POOL.resolve()}/optuna/search.db")
    return [(trial.state.name, trial.params["loss.temperature"]) for trial in study.trials]


def test_two_studies_and_pruned_trials(command: Command, runs: Runs, changed: list[str]) -> None:
    """What was pruned by other code runs again too; the other study in the file stays as it is."""
    tried, other = trials("stsb-dev"), trials("stsb-dev and time")
    assert [state for state, _ in tried] == ["COMPLETE", "PRUNED", "COMPLETE"]
    runs.configs.clear()
    runs.fail = lambda config: None
    assert command("train", *changed).code == 0
    assert sorted(runs.seen(lambda config: config.loss["temperature"])) == sorted(value for _, value in tried)
    assert sorted(trials("stsb-dev")) == sorted(("COMPLETE", value) for _, value in tried)
    assert trials("stsb-dev and time") == other
    assert command("train", *changed, "hydra.sweeper.trials=2", "hydra.sweeper.time=true").code == 0
    assert sorted(runs.seen(lambda config: config.loss["temperature"])) == sorted(value for _, value in other)


def test_killed_while_the_study_is_written_anew(command: Command, runs: Runs, changed: list[str]) -> None:
    """It stays as it was, and the search is started again."""
    tried = trials("stsb-dev")
    code = """import optuna, os, signal, sys
        from pathlib import Path
        from mirror.sweeps.optuna import _propose_again
        path = Path(sys.argv[1]).resolve()
        study = optuna.load_study(study_name="stsb-dev", storage=f"sqlite:///{path}")
        optuna.study.Study.enqueue_trial = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        _propose_again(path, study, study.trials)"""
    path = POOL / "optuna" / "search.db"
    line = [sys.executable, "-c", "\n".join(map(str.strip, code.splitlines())), str(path)]
    assert subprocess.run(line, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert len(list(path.parent.glob(".mirror-*"))) == 1  # the half-written one
    assert trials("stsb-dev") == tried
    runs.fail = lambda config: None
    result = command("train", *changed)
    assert result.code == 0, result.err
    assert sorted(trials("stsb-dev")) == sorted(("COMPLETE", value) for _, value in tried)


def test_search_for_two(command: Command, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score and time: what is told as best is beaten by no other trial in both."""
    pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    arguments = ["batch.size=tag(int,interval(50,400))", "hydra.sweeper.time=true", "hydra.sweeper.max_batch_size=3"]
    result = command("train", *SEARCH, *arguments)
    assert result.code == 0, result.err
    found = [(abs(math.log(c.loss["temperature"] / 0.05)), c.batch.size) for c in runs.configs]
    front = [a for a in found if not any(b[0] < a[0] and b[1] < a[1] for b in found)]
    assert sum(line.startswith("best: ") for line in result.err.splitlines()) == len(front)


PRUNED = [
    "sweep=optuna", "hydra.sweeper.trials=8", "data.path=texts.txt", "data.size=48", "batch.size=8", "trainer=cpu",
    "trainer.progress=false", "select=best", "eval.every=2", "eval.raw=[]", "loss.temperature=0.1",
    "model.pooling=mean", "optim.lr=tag(log,interval(1e-6,1e-1))",
]  # fmt: skip


def test_search_prunes(command: Command, tiny_bert: Path, eval_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials that stop are those of which the naive rule says so: every score so far under the median there."""
    optuna = pytest.importorskip("optuna")
    monkeypatch.setattr("mirror.training.pruning.STARTUP", 2)
    line = [*PRUNED, f"model.path={tiny_bert}", f"eval.data_dir='{eval_dir}'"]
    result = command("train", *line)
    assert result.code == 0, result.err
    study = optuna.load_study(study_name="stsb-dev", storage=f"sqlite:///{POOL.resolve()}/optuna/search.db")
    complete: list[dict[int, float]] = []
    pruned: list[dict[int, float]] = []
    for trial in study.trials:
        scores = trial.intermediate_values
        behind = [
            step
            for step in scores
            if step < 6
            and len(complete) >= 2
            and max(score for at, score in scores.items() if at <= step)
            < statistics.median(other[step] for other in complete)
        ]
        assert list(scores) == ([2, 4, 6] if not behind else list(range(2, behind[0] + 1, 2)))
        assert (trial.state.name == "PRUNED") is bool(behind)
        (pruned if behind else complete).append(scores)
    assert pruned, "choose a seed of the search with which a trial is pruned"

    runs = runs_in(POOL / "optuna").values()
    ended = [run for run in runs if run["status"] == "pruned"]
    assert len(ended) == len(pruned)
    assert all(run["error"].startswith("pruned: stsb-dev is ") for run in ended)
    assert result.err.count("pruned: stsb-dev is ") >= len(pruned)
    assert not [*POOL.rglob("best"), *POOL.rglob("checkpoints")]  # no weights of runs that were given up

    assert "8 trials in outputs/train-sweep/optuna finished already, 0 to run" in command("train", *line).err


def test_two_objectives_prune_nothing(command: Command, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna refuses to."""
    pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    for seed, (time_too, told) in enumerate({"true": False, "false": True}.items()):
        arguments = [f"hydra.sweeper.seed={seed}", f"hydra.sweeper.time={time_too}", "hydra.sweeper.trials=1"]
        assert command("train", *SEARCH, *arguments).code == 0
        assert [trial is not None for trial in runs.seen(lambda config: config.trial)] == [told]


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["hydra.sweeper.score=sts99"], ["hydra.sweeper.score=sts99", "stsb-dev"]),
        (["loss.temperature=0.1"], ["needs an axis"]),
        (["hydra.sweeper.trials=0"], ["trials"]),
        (["loss.temperature=glob(*)"], ["loss.temperature=glob(*)", "no range that a search"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_search_refuses(
    command: Command,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reasons: list[str],
) -> None:
    pytest.importorskip("optuna")
    judged(runs, monkeypatch)
    assert_refused(command("train", *SEARCH, *arguments), *reasons)


SMALL = ["eval=none", "data.size=48", "batch.size=16", "trainer=cpu", "data.path=texts.txt", "optim.lr=1e-3"]


@pytest.mark.slow
def test_killed_twice(tiny_bert: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, twice: in the end every run has been finished once, and none twice."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    arguments = ["-m", f"model.path={tiny_bert}", *SMALL, "seed=1,2,3,4,5,6", "trainer.max_epochs=5"]
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    finished: dict[str, int] = {}

    def note() -> int:
        for path in (tmp_path / POOL).glob("*/*/metrics.json"):
            if (run := read_run(path.parent)) and run["status"] == "finished":
                first = finished.setdefault(path.parent.name, path.stat().st_mtime_ns)
                assert path.stat().st_mtime_ns == first, "a finished run was run again"
        return len(finished)

    for wanted in (1, 3):
        process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.DEVNULL)
        while note() < wanted:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    assert note() == 6


@pytest.mark.slow
def test_workers_end_with_their_sweep(tiny_bert: Path, tmp_path: Path) -> None:
    """Also where it is killed without a word: what they were at is run again by the next start."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    arguments = ["-m", f"model.path={tiny_bert}", *SMALL, "seed=1,2,3", "trainer.max_epochs=100000"]
    arguments += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    pool = tmp_path / POOL / "unnamed"
    while len(list(pool.glob("*/curve/metrics.csv"))) < 2:
        assert sweep.poll() is None
        time.sleep(0.1)
    sweep.kill()
    sweep.wait()
    deadline = time.monotonic() + 20
    for path in pool.glob("*/metrics.json"):
        FileLock(path.parent / ".lock").acquire(timeout=max(0.0, deadline - time.monotonic())).lock.release()
    sizes = [path.stat().st_size for path in sorted(pool.glob("*/curve/metrics.csv"))]
    time.sleep(3)
    assert [path.stat().st_size for path in sorted(pool.glob("*/curve/metrics.csv"))] == sizes
    assert len(sizes) == 2  # nor did one take up the third


@pytest.mark.slow
@pytest.mark.parametrize("all_hear", [True, False], ids=["terminal", "kill"])
def test_interrupted_beside_each_other(tiny_bert: Path, tmp_path: Path, all_hear: bool) -> None:
    """By Ctrl-C, which a terminal sends to the workers too, and by a signal to the sweep alone."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    arguments = ["-m", f"model.path={tiny_bert}", *SMALL, "seed=1,2,3", "trainer.max_epochs=100000"]
    sweep = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, "hydra/launcher=joblib",
         "hydra.launcher.n_jobs=2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )  # fmt: skip
    pool = tmp_path / POOL / "unnamed"
    while len(list(pool.glob("*/curve/metrics.csv"))) < 2:
        assert sweep.poll() is None
        time.sleep(0.1)
    (os.killpg if all_hear else os.kill)(sweep.pid, signal.SIGINT)
    _, said = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "Traceback" not in said
    assert "leaked semaphore" not in said
    told = [line for line in said.splitlines() if line.startswith("interrupted")]
    assert told == [
        "interrupted: start the sweep again to go on, what is finished in outputs/train-sweep/unnamed is kept (0)"
    ]
    assert [run["status"] for run in runs_in(pool).values()] == ["interrupted"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "setting", "threads"),
    [
        ("joblib", "hydra.launcher.n_jobs=2", max(1, (os.cpu_count() or 1) // 2)),
        ("ray", "+hydra.launcher.ray.init.num_cpus=2", 1),
    ],
)
def test_beside_each_other(tiny_bert: Path, tmp_path: Path, launcher: str, setting: str, threads: int) -> None:
    """The cores are shared out, the terminal has one bar, a failed run is listed."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    arguments = ["-m", f"model.path={tiny_bert}", *SMALL, "seed=1,2", "loss.temperature=0,0.1"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, f"hydra/launcher={launcher}", setting],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "sweep: 100%" in result.stderr
    assert "augmented pairs" not in result.stderr
    assert "Launching" not in result.stderr  # nor each run with all its overrides, as launchers do
    assert result.stderr.count(f"model.path={tiny_bert}") == 0
    assert result.stderr.count("not finished: ") == 2
    assert "error: 2 of 4 runs did not finish" in result.stderr
    ended = [run for run in runs_in(tmp_path / POOL / "unnamed").values() if run["status"] == "finished"]
    assert [run["seed"] for run in sorted(ended, key=lambda run: int(run["seed"]))] == [1, 2]
    assert all(f"({threads} threads)" in run["hardware"]["device"] for run in ended)
