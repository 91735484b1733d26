"""What the system, the trackers and the launchers refuse: one sentence, and no traceback."""

from pathlib import Path

import pytest

from mirror import MirrorEncoder
from tests.commands import SMALL, Command, assert_refused

LONG = "x" * 300
"""A name that no file can have."""


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved encoder."""
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    MirrorEncoder.load(tiny_bert, "mean").save(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "arguments", "argument"),
    [
        ("train", ["eval=stsb", f"eval.data_dir={LONG}"], "eval.data_dir"),
        ("train", ["-m", "seed=1,2", f"hydra.sweep.dir={LONG}"], "hydra.sweep.dir"),
        ("train", ["-m", "seed=1,2", f"hydra.sweep.subdir={LONG}"], "hydra.sweep.subdir"),
        ("encode", ["input=texts.txt", f"output={LONG}"], "output"),
        ("search", ["where", "input=texts.txt", f"outputs={LONG}"], "outputs"),
        ("report", [LONG], "runs"),
    ],
)
def test_names_too_long(command: Command, tiny_bert: Path, name: str, arguments: list[str], argument: str) -> None:
    given = {"train": [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL], "encode": [f"encoder={tiny_bert}"]}
    flags, rest = arguments[: arguments[0] == "-m"], arguments[arguments[0] == "-m" :]
    assert_refused(command(name, *flags, *given.get(name, []), *rest), f"{argument}={LONG}", "File name too long")


@pytest.mark.parametrize("value", ["${x}", "${nope:3}"])
def test_what_is_resolved_late(command: Command, tiny_bert: Path, tmp_path: Path, value: str) -> None:
    """As any other mistake: nothing before the sentence, and a record."""
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=run"]
    result = command("train", *arguments, f"loss.temperature={value}")
    assert_refused(result, "loss.temperature: ")
    assert "Error executing" not in result.err
    assert "loss.temperature" in (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("package", "variable", "value", "reason"),
    [
        ("wandb", "WANDB_MODE", "nonsense", "WANDB_MODE"),
        ("mlflow", "MLFLOW_TRACKING_URI", "nonsense://x", "nonsense://x"),
        ("mlflow", "MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9", "MLFLOW_TRACKING_URI"),
    ],
)
def test_trackers_that_cannot_be_used(
    command: Command, tiny_bert: Path, eval_dir: Path, monkeypatch: pytest.MonkeyPatch,
    package: str, variable: str, value: str, reason: str,
) -> None:  # fmt: skip
    """Told before anything is read and measured."""
    pytest.importorskip(package)
    monkeypatch.setenv(variable, value)
    measured = ["eval=stsb", f"eval.data_dir={eval_dir}"]
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, *measured, f"logger={package}")
    assert_refused(result, reason)
    assert "secret" not in result.err
    assert "texts: " not in result.err


def test_search_for_what_is_not_measured(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "sweep=optuna"]
    result = command("train", *arguments, "hydra.sweeper.score=nosuch")
    assert_refused(result, "hydra.sweeper.score=nosuch is not measured")
    assert not list(tmp_path.rglob("metrics.json"))


def test_interval_of_whole_numbers() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from mirror.sweeps.optuna import _distribution

    pytest.importorskip("optuna")
    parse = OverridesParser.create().parse_override
    assert type(_distribution(parse("seed=int(interval(1,2.5))"))).__name__ == "IntDistribution"
    assert type(_distribution(parse("optim.lr=interval(1,2)"))).__name__ == "FloatDistribution"


def test_processes_that_would_wait_for_each_other(
    command: Command, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "trainer=ddp", "trainer.devices=4"]
    assert_refused(command("train", *arguments), "trainer.devices=4", "WORLD_SIZE=2")
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


@pytest.mark.parametrize("line", ["score\tsentence1\tsentence2\n1\ta\t{}\n", "score\tsentence1\t{}\n"])
def test_cells_too_long(command: Command, encoder: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "own.tsv").write_text(line.format("a" * 200_000), encoding="utf-8")
    assert_refused(command("evaluate", f"encoder={encoder}", "eval.sets=[own.tsv]"), "own.tsv", "field larger than")


def test_paths_at_home(command: Command, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("encode", f"encoder={encoder}", "input=~/texts.txt", "output=~/vectors.npy").code == 0
    assert (tmp_path / "vectors.npy").is_file()
