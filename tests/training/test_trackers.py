"""Where the curves go: CSV always, TensorBoard and W&B on request, and never a question to the user."""

import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mirror import MirrorError
from mirror.config import LoggerConfig, Tracker, WandbMode, flat
from mirror.training.trackers import build_trackers, check_trackers, close_trackers
from tests.conftest import ROOT, SENTENCES
from tests.helpers import go, metrics

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user who has never logged in to W&B; and a service of W&B's that ends with the test."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    yield
    close_trackers()


def offline_runs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("offline-run-*/*.wandb"))


def records(log: Path) -> list[dict[str, Any]]:
    """What a W&B file holds, read with W&B's own reader."""
    command = Path(sys.executable).parent / "wandb"
    found = str(command) if command.exists() else shutil.which("wandb")
    if found is None:
        pytest.skip("no wandb command beside this Python")
    printed = subprocess.run(
        [found, "leet", "inspect", "--json", str(log)], capture_output=True, text=True, check=True
    ).stdout
    return [json.loads(line) for line in printed.splitlines() if line.strip()]


def test_csv_always(tiny_bert: Path, tmp_path: Path) -> None:
    go(tiny_bert, tmp_path / "run", "logger.trackers=[]")
    with (tmp_path / "run" / "curve" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert all(float(row["loss"]) > 0 for row in rows)


def test_tensorboard(tiny_bert: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    go(tiny_bert, tmp_path / "run", "logger=tensorboard")
    assert (tmp_path / "run" / "curve" / "metrics.csv").exists()
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]


def test_wandb_without_an_account_is_offline(
    tiny_bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each run has a W&B run of its own with its settings and its losses, and is closed at the end."""
    for seed in (1, 2):
        go(tiny_bert, tmp_path / f"run{seed}", "logger=wandb", f"seed={seed}")
        assert wandb.run is None
        (log,) = offline_runs(tmp_path / f"run{seed}")
        content = json.dumps(records(log))
        assert content.count('"loss"') >= 3
        assert "learning_rate" in content
        assert f"run{seed}" in content
    assert len({log.name for log in offline_runs(tmp_path)}) == 2
    assert "wandb:" not in capfd.readouterr().err


def test_wandb_is_closed_after_a_failed_run(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.losses.infonce.info_nce", lambda vectors, *_, **__: vectors.sum() * float("nan"))
    with pytest.raises(MirrorError, match="loss is nan"):
        go(tiny_bert, tmp_path / "run", "logger=wandb", "logger.mode=offline")
    assert wandb.run is None
    (log,) = offline_runs(tmp_path)
    assert '"exit_code": 1' in json.dumps(records(log))  # W&B shows it as failed


MEASURED = ["eval=stsb", "logger.group=sweep", "logger.tags=[a,b]"]


def test_wandb_has_everything(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """Flat settings, group, kind and tags, the history, all scores in the summary, both tables, the picture."""
    go(tiny_bert, tmp_path / "run", "logger=wandb", f"eval.data_dir='{eval_dir}'", *MEASURED)
    (log,) = offline_runs(tmp_path / "run")
    content = records(log)
    text = json.dumps(content)
    found = metrics(tmp_path / "run")
    for said in (
        "loss.temperature",
        "model.pooling",
        '"sweep"',
        '"train"',
        "tuned/stsb-test/all",
        "raw mean/stsb-dev/all",
    ):
        assert said in text, said
    for name in ("augmented pairs", "scores", "cosines"):
        assert f'"{name}._type"' in text, name  # in the history
    assert f"{found['scores']['tuned']['stsb-test']['all']:.6f}"[:7] in text
    media = [path.suffix for path in log.parent.rglob("media/**/*") if path.is_file()]
    assert sorted(media) == [".json", ".json", ".png"]
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in log.parent.rglob("*.table.json")]
    scores = next(table["data"] for table in tables if len(table["columns"]) == 4)
    assert ["tuned", "stsb-test", "all", pytest.approx(found["scores"]["tuned"]["stsb-test"]["all"])] in scores


def merged(read: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {key: value for entry in read if kind in entry for key, value in entry[kind].get("update", {}).items()}


def test_wandb_charts_and_summary(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every chart is drawn over the steps; the summary has the gains, and the geometry of the printed table."""
    with caplog.at_level(logging.INFO):
        go(tiny_bert, tmp_path / "run", "logger=wandb", f"eval.data_dir='{eval_dir}'", "logger.name=mine", *MEASURED)
    (log,) = offline_runs(tmp_path / "run")
    assert f"wandb sync {log.parent}" in caplog.text
    content, found = records(log), metrics(tmp_path / "run")
    (every,) = (entry["metric"] for entry in content if "glob_name" in entry.get("metric", {}))
    assert (every["glob_name"], every["step_metric"]) == ("*", "trainer/global_step")
    steps = [entry["history"]["item"]["trainer/global_step"] for entry in content if "history" in entry]
    assert steps == [0, 0, 1, 2, 3, 3]  # geometry, the losses of three steps, geometry, results
    summary = merged(content, "summary")
    scores = {column: sets["stsb-test"]["all"] for column, sets in found["scores"].items()}
    assert summary["gain/stsb-test/all"] == pytest.approx(scores["tuned"] - scores["raw cls"])
    assert summary["geometry/alignment"] == pytest.approx(found["geometry"]["tuned"]["alignment"])
    (begun,) = (entry["run"] for entry in content if "run" in entry)
    assert begun["display_name"] == "mine"


def test_seeds_are_runs_of_one_group(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """And one more run has their mean and deviation."""
    go(tiny_bert, tmp_path / "run", "logger=wandb", "seeds=2", f"eval.data_dir='{eval_dir}'", "eval=stsb")
    found = metrics(tmp_path / "run")["certainty"]["tuned"]["stsb-test"]
    runs = {}
    for log in offline_runs(tmp_path / "run"):
        content = records(log)
        (begun,) = (entry["run"] for entry in content if "run" in entry)
        assert begun["run_group"] == "run"
        runs[begun["display_name"]] = merged(content, "summary")
    assert runs.keys() == {"run seed 42", "run seed 43", "run mean"}
    figures = [runs[f"run seed {seed}"]["tuned/stsb-test/all"] for seed in (42, 43)]
    assert sorted(figures) == pytest.approx(sorted(found["seeds"]))
    assert runs["run mean"]["tuned/stsb-test/all"] == pytest.approx(sum(figures) / 2)
    assert runs["run mean"]["sd/tuned/stsb-test"] == pytest.approx(found["sd"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]], ids=["serial", "joblib"]
)
def test_wandb_in_a_sweep(tiny_bert: Path, eval_dir: Path, tmp_path: Path, launcher: list[str]) -> None:
    """Read back with W&B's own command: each run of a sweep has its own settings, group, history and summary."""
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    line = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "sweep=temperature", "loss.temperature=0.05,0.2",
        "seed=1,2", f"model.path={tiny_bert}", "data.path=texts.txt", "data.size=48", "batch.size=16", "trainer=cpu",
        "eval=stsb", f"eval.data_dir={eval_dir}", "eval.raw=[]", "optim.lr=1e-3", "logger=wandb", "logger.mode=offline",
        *launcher,
    ]  # fmt: skip
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)

    points = set()
    for log in offline_runs(tmp_path):
        read, folder = records(log), log.parents[2]
        found = metrics(folder)
        (begun,) = (entry["run"] for entry in read if "run" in entry)
        assert (begun["run_group"], begun["job_type"], begun["display_name"]) == ("temperature", "train", folder.name)
        settings = merged(read, "config")
        expected = dict(flat(found["config"])) | {"effective_batch.texts": 16}
        assert {key: settings[key] for key in expected} == expected
        assert (settings["logger.choices.aug"], settings["logger.choices.sweep"]) == ("mirror", "temperature")
        history = [entry["history"]["item"] for entry in read if "history" in entry]
        with (folder / "curve" / "metrics.csv").open(encoding="utf-8") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
        assert [item["loss"] for item in history if "loss" in item] == pytest.approx(losses)
        assert merged(read, "summary")["tuned/stsb-test/all"] == found["scores"]["tuned"]["stsb-test"]["all"]
        points.add((settings["loss.temperature"], settings["seed"]))
    assert points == {(0.05, 1), (0.05, 2), (0.2, 1), (0.2, 2)}


def test_run_that_goes_on_keeps_its_wandb_id(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        (logger,) = build_trackers(LoggerConfig([Tracker.wandb], mode=WandbMode.offline), tmp_path, {})[1:]
        ids.add(logger.version)
        close_trackers()
    assert len(ids) == 1


def test_several_at_once(tiny_bert: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard and MLflow get what W&B gets: settings, curve, scores, pairs and picture."""
    mlflow = pytest.importorskip("mlflow")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trackers = "logger.trackers=[csv,tensorboard,mlflow]"
    go(tiny_bert, tmp_path / "sweep" / "run", trackers, f"eval.data_dir='{eval_dir}'", *MEASURED)
    score = metrics(tmp_path / "sweep" / "run")["scores"]["tuned"]["stsb-test"]["all"]

    events = accumulator.EventAccumulator(str(tmp_path / "sweep" / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]
    assert [event.value for event in events.Scalars("tuned/stsb-test/all")] == [pytest.approx(score)]
    assert "cosines" in events.Tags()["images"]
    plugins = events.summary_metadata
    assert plugins["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"
    assert [event.value for event in events.Scalars("score/stsb-test")] == [pytest.approx(score)]
    assert any("augmented pairs" in tag for tag in events.Tags()["tensors"])

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'sweep' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mirror").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.temperature"] == "0.04"
    assert run.data.metrics["tuned/stsb-test/all"] == pytest.approx(score)
    assert (run.data.tags["group"], run.data.tags["job_type"], run.data.tags["a"]) == ("sweep", "train", "true")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"augmented-pairs.md", "cosines.png"}


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        (WandbMode.auto, {}, "offline"),
        (WandbMode.auto, {"WANDB_API_KEY": "x" * 40}, "online"),
        (WandbMode.auto, {"WANDB_MODE": "offline", "WANDB_API_KEY": "x" * 40}, "offline"),
        (WandbMode.auto, {"WANDB_MODE": "disabled"}, "disabled"),
        (WandbMode.offline, {"WANDB_API_KEY": "x" * 40}, "offline"),
        (WandbMode.online, {}, "online"),
    ],
)
def test_wandb_mode(
    mode: WandbMode,
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Online only with a key, or if the user says so; what the environment says holds where we say ``auto``."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given: dict[str, Any] = {}

    class Logger:
        """In place of Lightning's, which wants a real run."""

        def __init__(self, experiment: Any) -> None:
            assert experiment is begun

        def log_hyperparams(self, settings: dict[str, Any]) -> None:
            given["config"] = settings

    begun = SimpleNamespace(define_metric=lambda *_, **__: None, url="address", dir="run/files", offline=False)

    def init(**settings: Any) -> Any:
        given.update(settings)
        return begun

    monkeypatch.setattr("pytorch_lightning.loggers.WandbLogger", Logger)
    monkeypatch.setattr("wandb.init", init)
    config = LoggerConfig([Tracker.csv, Tracker.wandb], project="p", mode=mode, group="g", tags=["t"])
    build_trackers(config, tmp_path, {"seed": 1})
    assert given["mode"] == expected
    assert (given["project"], given["group"], given["tags"]) == ("p", "g", ["t"])
    assert given["config"] == {"seed": 1}


@pytest.mark.parametrize("tracker", [Tracker.wandb, Tracker.tensorboard, Tracker.mlflow])
def test_package_that_is_not_installed(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{name}", False)
    monkeypatch.setattr("pytorch_lightning.loggers.mlflow._MLFLOW_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for told in (check_trackers, lambda config: build_trackers(config, tmp_path, {})):
        with pytest.raises(MirrorError, match=rf"pip install 'mirror-encoders\[{tracker.value}\]'"):
            told(LoggerConfig([tracker]))


def test_wandb_that_is_disabled(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By W&B itself: the run goes on, and nothing is kept."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    go(tiny_bert, tmp_path / "run", "logger=wandb")
    assert metrics(tmp_path / "run")["status"] == "finished"
    assert not (tmp_path / "run" / "wandb").exists()
