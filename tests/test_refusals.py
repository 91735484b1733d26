"""What the system, the trackers and the launchers refuse: one sentence, and no traceback."""

import io
import json
import os
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import mirror.report.errors
from mirror import MirrorEncoder, mirror_tune
from mirror.apply import encode
from mirror.cli.folder import PATIENCE
from mirror.config import EncodeConfig
from mirror.config.compose import compose
from mirror.runs.atomic import SCRATCH
from tests.commands import SMALL, Command, assert_refused
from tests.conftest import SENTENCES, files_no_larger_than

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
        ("evaluate", [f"encoder={LONG}", "eval.sets=[own.tsv]"], "encoder"),
        ("encode", [f"encoder={LONG}", "input=texts.txt", "output=vectors.npy"], "encoder"),
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
    Path("own.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\ta\tc\n", encoding="utf-8")
    assert_refused(command(name, *flags, *given.get(name, []), *rest), f"{argument}={LONG}", "File name too long")


def test_a_model_s_name_too_long(command: Command) -> None:
    """It can be no folder; nothing is said of the settings that would follow it."""
    result = command("train", f"model.path={LONG}", "data.path=texts.txt", *SMALL)
    assert_refused(result, f"model.path={LONG} is no local folder")


@pytest.mark.parametrize("value", ["${x}", "${nope:3}"])
def test_what_is_resolved_late(command: Command, tiny_bert: Path, tmp_path: Path, value: str) -> None:
    """As any other mistake: nothing before the sentence, and a record."""
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=run"]
    result = command("train", *arguments, f"loss.temperature={value}")
    assert_refused(result, f"loss.temperature: {value.replace('3', '…')} names no setting: give a value")
    assert "Error executing" not in result.err
    assert "loss.temperature" in (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("package", "variable", "value", "reason"),
    [
        ("wandb", "WANDB_MODE", "nonsense", "(mode: Input should be 'online'"),
        ("mlflow", "MLFLOW_TRACKING_URI", "nonsense://x", "nonsense://x"),
        ("mlflow", "MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9", "(http://127.0.0.1:9 does not answer)"),
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


def test_paths_at_home(
    command: Command, encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("encode", f"encoder={encoder}", "input=~/texts.txt", "output=~/vectors.npy").code == 0
    assert (tmp_path / "vectors.npy").is_file()
    sts = (eval_dir / "sts" / "stsb-dev.tsv").read_text(encoding="utf-8")
    (tmp_path / "one, two.tsv").write_text(sts, encoding="utf-8")
    (tmp_path / "own.tsv").write_text(sts, encoding="utf-8")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(encoder)
    assert command("evaluate", "encoder=[~/a,~/b]", "eval.sets=[own.tsv,~/own.tsv]").code == 0


def test_paths_at_home_in_python(
    encoder: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    MirrorEncoder.load(encoder).save("~/copy")
    mirror_tune("~/copy", SENTENCES[:40], ["batch.size=20"], output="~/run")
    encode(EncodeConfig("~/run/encoder", "~/copy/config.json", "~/vectors.npy"))
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "run", "vectors.npy"}


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0 in the environment is no number of processes"),
        ({"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, "takes 1 process, but WORLD_SIZE=2"),
    ],
)
def test_processes_that_make_no_run(
    command: Command, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], reason: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert_refused(command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL), reason)


@pytest.mark.parametrize(
    "wrong",
    ["loss.temperature=-1", "loss.nosuch=1", "data.path=nothing.txt", "trainer.devices=3", "model.path=/nowhere"],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_several_processes_speaks(
    command: Command, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int, wrong: str
) -> None:
    """The first one, of what all of them meet; the others wait for it, and for their launcher to end them."""
    (tmp_path / "run").mkdir()
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("mirror.training.run.is_rank_zero", lambda: rank == 0)
    monkeypatch.setattr("mirror.training.run.quieten", lambda rank_zero: None)  # it would be so in the next tests too
    waited: list[float] = []
    monkeypatch.setattr("mirror.cli.folder.time.sleep", waited.append)
    arguments = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, *arguments, wrong)
    assert result.code == 1
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    assert waited.count(PATIENCE) == rank  # threads of libraries sleep too
    assert (rank == 0) or not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_several_processes_tells_of_the_interruption(
    command: Command, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int
) -> None:
    """Also when Lightning has taken WORLD_SIZE out of the environment, as it does at the end of its processes."""
    (tmp_path / "run").mkdir()
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))

    def interrupted(*arguments: object, **settings: object) -> None:
        monkeypatch.delenv("WORLD_SIZE")
        raise KeyboardInterrupt

    monkeypatch.setattr("mirror.training.run.train", interrupted)
    arguments = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, *arguments)
    assert result.code == 128 + signal.SIGINT
    assert result.err.count("interrupted") == 1 - rank


def test_signs_that_a_terminal_lacks(
    command: Command, encoder: Path, eval_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with PYTHONIOENCODING=ascii or in the locale of Latin-1."""
    for stream, number in {"stdout": 1, "stderr": 2}.items():
        raw = os.fdopen(os.dup(number), "wb", buffering=0)
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(raw, "ascii", "strict", write_through=True))
    result = command("evaluate", f"encoder={encoder}", "eval.sets=[stsb-dev]", f"eval.data_dir={eval_dir}")
    assert result.code == 0
    assert "mean pooling, x 100 (Spearman" in " ".join(result.err.split())  # wrapped where the folder's name is long
    assert " -----" in result.err
    assert " .. " in result.err
    assert result.err.isascii()
    assert "\\u" not in result.err + result.out
    found = command("search", "où est la gare?", f"encoder={encoder}", "input=texts.txt")
    assert found.code == 0
    assert "o\\xf9 est" in found.out


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_full_disk_at_the_page_of_errors(
    command: Command, encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Named, nothing half-written, and the encoder is there."""
    pytest.importorskip("plotly")
    write = mirror.report.errors.write_page

    def full(*arguments: Any, **options: Any) -> None:
        with files_no_larger_than(20_000):
            write(*arguments, **options)

    monkeypatch.setattr(mirror.report.errors, "write_page", full)
    own = [f"model.path={encoder}", "data.path=texts.txt", *SMALL] if name == "train" else [f"encoder={encoder}"]
    measured = ["eval.sets=[stsb-dev]", f"eval.data_dir={eval_dir}", "eval.errors=true", "hydra.run.dir=run"]
    way = "go on with resume=" if name == "train" else "start again"
    assert_refused(command(name, *own, *measured), "errors.html cannot be written", way)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not any("errors" in name or name.startswith(SCRATCH) for name in left)
    assert ("encoder" in left) is (name == "train")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["status"] == "failed"


@pytest.mark.parametrize("drawn", ["mirror.training.run.draw_cosines", "mirror.training.measure.draw_geometry"])
def test_full_disk_at_a_picture(
    command: Command, encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    pytest.importorskip("matplotlib")
    module, _, function = drawn.rpartition(".")
    draw = getattr(sys.modules[module], function)

    def full(*arguments: Any) -> None:
        with files_no_larger_than(4_000):
            draw(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(drawn, full)
        measured = ["eval.sets=[stsb-dev]", f"eval.data_dir={eval_dir}", "hydra.run.dir=run"]
        result = command("train", f"model.path={encoder}", "data.path=texts.txt", *SMALL, *measured)
    assert_refused(result, "cannot be written", "go on with resume=")
    assert (tmp_path / "run" / "encoder" / "config.json").is_file()
    assert not (tmp_path / "run" / f"{function.removeprefix('draw_')}.png").exists()
    assert command("train", "resume=run").code == 0
    assert (tmp_path / "run" / f"{function.removeprefix('draw_')}.png").is_file()


@pytest.mark.parametrize(
    ("name", "arguments", "moment"),
    [
        ("encode", ["input=texts.txt", "output=vectors.npy"], "mirror.apply.read_lines"),
        ("encode", ["input=texts.txt", "output=vectors.npy"], "numpy.save"),
        ("search", ["where", "input=texts.txt"], "numpy.save"),
        ("search", ["where", "input=texts.txt"], "mirror.search.search.nearest"),
        ("evaluate", ["eval.sets=[stsb-dev]"], "mirror.encoder.encoder.MirrorEncoder.encode_by"),
        ("report", ["run"], "mirror.report.page"),
    ],
)
def test_interrupted_at_any_moment(
    command: Command, encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, arguments: list[str], moment: str,
) -> None:  # fmt: skip
    """Ctrl-C: one sentence, the status that shells know, and nothing half-written."""
    given = {"report": [], "evaluate": [f"encoder={encoder}", f"eval.data_dir={eval_dir}", "hydra.run.dir=run"]}
    monkeypatch.setattr(moment, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    if name == "report":
        begun = {"status": "finished", "config": asdict(compose("train", [])), "scores": {}, "seconds": {}}
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(begun, default=str), encoding="utf-8")
    result = command(name, *arguments, *given.get(name, [f"encoder={encoder}"]))
    assert result.code == 130
    assert next(line for line in result.err.splitlines() if "interrupted" in line).startswith("interrupted")
    assert "Traceback" not in result.err
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    whole = {"vectors.npy"} if "nearest" in moment else set()  # kept for the next question
    assert left <= {"texts.txt", ".lock", "metrics.json", "evaluate.log", *whole}
    if name == "evaluate":
        assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["status"] == "interrupted"


@pytest.mark.parametrize("limit", ["many", -1, 1])
def test_a_tokenizer_s_damaged_limit(command: Command, encoder: Path, tmp_path: Path, limit: object) -> None:
    shutil.copytree(encoder, tmp_path / "copy")
    settings = tmp_path / "copy" / "tokenizer_config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(content | {"model_max_length": limit}), encoding="utf-8")
    result = command("encode", "encoder=copy", "input=texts.txt", "output=vectors.npy")
    assert_refused(result, f"model_max_length is {limit!r}")


@pytest.mark.parametrize("flags", [["seed=1"], ["-m", "seed=1,2"]])
def test_folders_at_home_in_a_yaml_file(
    command: Command, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = "# @package _global_\nhydra:\n  run: {dir: ~/run}\n  sweep: {dir: ~/sweep}\n"
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(own, encoding="utf-8")
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "--config-dir=conf", "experiment=own"]
    assert command("train", *arguments, *flags).code == 0
    assert len(list((tmp_path / "home").rglob("metrics.json"))) == len(flags)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["resume=nope", "hydra.run.dir=run"], "resume=nope goes on in its own folder: leave out hydra.run.dir=run"),
        (["hydra.job_logging.root.level=nope"], "levels are DEBUG, INFO, WARNING and ERROR"),
        (["--config-name=nope"], "There is no nope: give a file of conf"),
        (["model/pooling=attention", "trainer.max_epochs=0"], "model.pooling=AttentionPooling has weights to learn"),
        (["schedule=stepped", "schedule.factors=[]"], "schedule.factors=[] is out of range"),
        (["eval.sets=[own.tsv]", "eval.dictionary=texts.txt"], "eval.dictionary=texts.txt is read by none of the sets"),
        (["loss=distil", "teacher=[a,a]"], "teacher=[a,a] names one twice"),
    ],
)
def test_settings_that_cannot_be_meant(command: Command, tiny_bert: Path, arguments: list[str], reason: str) -> None:
    Path("own.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\ta\tc\n", encoding="utf-8")
    assert_refused(command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, *arguments), reason)
