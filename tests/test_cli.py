"""The commands as a user types them, good and bad; in this process, because the imports cost seconds."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from filelock import FileLock
from omegaconf import OmegaConf

import mirror.cli.folder
from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import compose
from mirror.config.suited import TUNING
from mirror.runs.registry import hold_lock
from mirror.training.parts import check_parts
from tests.commands import SMALL, Command, Result, assert_refused
from tests.conftest import ROOT, SENTENCES


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved encoder."""
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    MirrorEncoder.load(tiny_bert, "mean").save(folder)
    return folder


def test_a_run_and_what_it_leaves(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL)
    assert result.code == 0
    assert result.out == ""
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert {entry.name for entry in folder.iterdir()} == {
        ".hydra", ".lock", "train.log", "metrics.json", "curve", "encoder",
    }  # fmt: skip
    assert {entry.name for entry in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    log = (folder / "train.log").read_text(encoding="utf-8")
    for said in (
        "texts: texts.txt: 240 available",
        "augmented pairs:",
        "training on cpu",
        "time: ",
        "encoder saved in",
    ):
        assert said in log
        assert said in result.err
    (vectors,) = [MirrorEncoder.load(folder / "encoder").encode(SENTENCES[:3])]
    assert vectors.shape == (3, 32)


def test_terminal_shows_nothing_of_the_libraries(command: Command, tiny_bert: Path) -> None:
    """No warnings of Lightning, no bars of transformers: everything on the terminal is ours."""
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL)
    for noise in ("site-packages", "Warning", "model shards", "LeafSpec", "💡"):
        assert noise not in result.err


def test_folder_of_a_run_is_never_used_twice(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=run"]
    assert command("train", *arguments).code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert_refused(command("train", *arguments, "seed=3"), "hydra.run.dir=run holds a run already")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [("train", "checkpoints"), ("train", "best"), ("train", "encoder.partial"), ("pretrain", "tokenizer"),
     ("evaluate", "errors.html")],
)  # fmt: skip
def test_files_of_others_stay(
    command: Command, tiny_bert: Path, encoder: Path, tmp_path: Path, name: str, kept: str
) -> None:
    """A run folder that holds anything but what Hydra begins with is refused, before Hydra writes there."""
    (tmp_path / "mine" / kept).mkdir(parents=True)
    (tmp_path / "mine" / kept / "step=1.ckpt").write_text("years of work")
    arguments = {
        "train": [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL],
        "pretrain": ["data.path=texts.txt"],
        "evaluate": [f"encoder={encoder}", "eval=none"],
    }[name]
    assert_refused(command(name, *arguments, "hydra.run.dir=mine"), f"hydra.run.dir=mine holds {kept}")
    assert_refused(command(name, *arguments, "hydra.run.dir=."), "hydra.run.dir=. holds mine")
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == [kept, "step=1.ckpt"]
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "texts.txt"}


def test_folder_in_which_nothing_but_hydra_began(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    """As where a run is stopped while it imports."""
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    for name in ("train.log", ".lock"):
        (tmp_path / "run" / name).touch()
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=run")
    assert result.code == 0, result.err


def test_sweep_of_another_command_leaves_files_of_others(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "0" / "tokenizer").mkdir(parents=True)
    result = command("pretrain", "-m", "data.path=texts.txt", "seed=1", "hydra.sweep.dir=mine")
    assert_refused(result, "mine/0 is in use, or holds what is not this run's", "hydra.sweep.dir")
    assert (tmp_path / "mine" / "0" / "tokenizer").is_dir()


def test_one_run_at_a_time(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    """Of a run that has just begun, and of one that goes on."""
    (tmp_path / "run").mkdir()
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=run"]
    with FileLock(tmp_path / "run" / ".lock"):
        assert_refused(command("train", *arguments), "hydra.run.dir=run is in use by another run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        (tmp_path / "run" / "metrics.json").write_text("{}")
        assert_refused(command("train", "resume=run"), "resume=run is in use by another run")
    assert (tmp_path / "run" / "metrics.json").read_text() == "{}"


def test_folder_is_held_until_the_end(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def train(config: object, folder: Path, **_: object) -> None:
        with hold_lock(folder) as ours:
            held.append(not ours)

    module = ModuleType("mirror.training.run")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mirror.training.run", module)
    assert command("train", "hydra.run.dir=run").code == 0
    assert held == [True]
    with hold_lock(tmp_path / "run") as ours:
        assert ours


@pytest.mark.parametrize(
    ("name", "environment", "reasons"),
    [
        ("train", {"RANK": "1"}, ["RANK=1 in the environment", "unset RANK"]),
        ("train", {"RANK": "0", "LOCAL_RANK": "3", "WORLD_SIZE": "1"}, ["unset LOCAL_RANK"]),
        ("pretrain", {"SLURM_PROCID": "2", "SLURM_NTASKS": "1"}, ["unset SLURM_PROCID"]),
        ("train", {"RANK": "abc"}, ["RANK=abc in the environment", "unset RANK"]),
        ("train", {"WORLD_SIZE": ""}, ["WORLD_SIZE= in the environment"]),
        ("search", {"SLURM_PROCID": "-1"}, ["SLURM_PROCID=-1 in the environment"]),
    ],
)
@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_rank_that_was_left(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, environment: dict[str, str], reasons: list[str], sweep: list[str],
) -> None:  # fmt: skip
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert_refused(command(name, *sweep, "data.path=texts.txt"), *reasons)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


@pytest.mark.parametrize(
    ("environment", "devices", "follower"),
    [
        ({}, 1, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 1, False),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, 1, True),
        ({"LOCAL_RANK": "1"}, 2, True),
    ],
)
def test_one_of_several_processes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], devices: int, follower: bool
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert mirror.cli.folder.follower(OmegaConf.create({"trainer": {"devices": devices, "nodes": 1}})) is follower


def test_folder_that_cannot_be_written(command: Command, tiny_bert: Path) -> None:
    result = command("train", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.run.dir=texts.txt/run")
    assert_refused(result, "hydra.run.dir=texts.txt/run cannot be written (Not a directory)")


def test_sweep_gives_each_run_its_own_folder(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    result = command("train", "-m", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "seed=1,2")
    assert result.code == 0
    found = (tmp_path / "outputs" / "train-sweep" / "unnamed").glob("*/metrics.json")
    runs = sorted((json.loads(path.read_text(encoding="utf-8")) for path in found), key=lambda run: run["seed"])
    assert [run["seed"] for run in runs] == [1, 2]
    assert [run["status"] for run in runs] == ["finished"] * 2
    assert runs[0]["loss"] != runs[1]["loss"]
    assert all("import" not in run["seconds"] for run in runs)  # which would count from the start of the sweep


def test_sweep_goes_on_after_a_run_that_fails(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    """And its exit status still tells, without a traceback."""
    result = command("train", "-m", f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "loss.temperature=0,0.1")
    assert result.code != 0
    assert "loss.temperature=0.0 is out of range" in result.err
    assert len(list((tmp_path / "outputs" / "train-sweep" / "unnamed").glob("*/encoder"))) == 1
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["data.path=nothing.txt"], ["data.path=nothing.txt", "does not exist"]),
        (["data.path=."], ["is a folder"]),
        (["data=file"], ["data.path", "not set"]),
        (["data=pairs"], ["data.path", "not set"]),
        (["data.path=texts.txt", "model.path=/no/such/model"], ["model.path=/no/such/model", "does not exist"]),
        (["data.path=texts.txt", "model.path=."], ["model.path=.", "no config.json"]),
        (["data.path=texts.txt", "model=roberta"], ["roberta-base", "hub cannot be reached", "local folder"]),
        (["data.path=texts.txt", "model.path="], ["model.path"]),
        (["data.path=texts.txt", "trainer.devices=2"], ["trainer.devices=2", "trainer=ddp"]),
        (["data.path=texts.txt", "loss.temperature=0"], ["loss.temperature=0"]),
        (["data.path=texts.txt", "aug=none", "aug.dropout=0"], ["views of a text are the same"]),
        (["data.path=texts.txt", "eval.sets=[stsb]"], ["eval.sets", "'stsb'"]),
        (["data.path=texts.txt", "eval=stsb", "eval.data_dir=nowhere"], ["eval.data_dir=nowhere"]),
        (["data.path=texts.txt", "eval=stsb", "eval.data_dir=."], ["lacks sts/stsb-dev.tsv"]),
        (["data.path=texts.txt", "select=best", "eval.data_dir=."], ["lacks sts/stsb-dev.tsv"]),
        (["data.path=texts.txt", "select=best", "eval.validation=sst2"], ["sst2"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_train_refuses(
    command: Command, tiny_bert: Path, tmp_path: Path, arguments: list[str], reasons: list[str]
) -> None:
    model = [] if any(argument.startswith("model") for argument in arguments) else [f"model.path={tiny_bert}"]
    result = command("train", *SMALL, *model, *arguments, "hydra.run.dir=run")
    assert_refused(result, *reasons)
    assert not (tmp_path / "run" / "encoder").exists()
    # The reason is kept where the run would have been.
    kept = [tmp_path / "run" / name for name in ("metrics.json", "train.log")]
    assert any(reasons[0] in path.read_text(encoding="utf-8") for path in kept if path.exists())


def test_no_gpu(command: Command, tiny_bert: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = command("train", *SMALL, f"model.path={tiny_bert}", "data.path=texts.txt", "trainer=gpu")
    assert_refused(result, "finds no GPU", "trainer.accelerator=cpu")


def test_ddp_inside_a_sweep(command: Command, tiny_bert: Path) -> None:
    """Every process would start the sweep again."""
    result = command("train", "-m", "trainer=ddp", "seed=1,2", f"model.path={tiny_bert}", "data.path=texts.txt")
    assert result.code != 0
    assert "trainer=ddp cannot run inside a sweep" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("aug.span_kk=3", "span_kk"),
        ("model=berta", "berta"),
        ("modle=bert", "modle is no setting; did you mean model?"),
        ("size=base", "size is a group of another command than scripts/train.py"),
        ("nonsense", "nonsense"),
        ("--nonsense", "nonsense"),
        ("eval.sets=stsb-dev", "eval.sets"),
        ("select=worst", "worst"),
    ],
)
def test_hydra_refuses(command: Command, tmp_path: Path, argument: str, reason: str) -> None:
    result = command("train", argument)
    assert result.code != 0
    assert reason in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("override", ["aug.span_k=five", "+loss.temprature=0.1", "loss._target_=nowhere.Loss"])
def test_part_that_does_not_fit(command: Command, tmp_path: Path, override: str) -> None:
    """Told before anything is read: the texts are not there."""
    result = command("train", "data.path=nothing.txt", override, "hydra.run.dir=run")
    assert result.code == 1
    assert f"error: {override.lstrip('+').partition('=')[0]}" in result.err
    assert "Traceback" not in result.err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_stray_key_in_a_yaml_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "aug").mkdir(parents=True)
    lines = "defaults: [mirror, _self_]\nspan_k: 3\nspam: 3\n"
    (tmp_path / "mine" / "aug" / "own.yaml").write_text(lines, encoding="utf-8")
    result = command("train", "--config-dir", "mine", "aug=own")
    assert result.code != 0
    assert "spam" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "override",
    [
        "aug.span_k=-1", "aug.span_k=1001", "aug.min_chars=-1", "aug.dropout=1", "aug.dropout=-0.1", "aug.dropout=nan",
        "aug.drophead=1", "loss.temperature=0", "loss.temperature=-0.1", "loss.temperature=nan", "loss.temperature=inf",
        "batch.size=1", "batch.size=0", "batch.max_tokens=2", "batch.max_tokens=100000", "batch.workers=-1",
        "data.size=1", "data.size=-5", "optim.lr=0", "optim.lr=1", "optim.lr=nan", "optim.weight_decay=1",
        "schedule.warmup_steps=-1", "trainer.max_epochs=-1",
        "trainer.max_steps=0", "trainer.devices=0", "trainer.nodes=0",
        "trainer.gradient_clip=0", "eval.every=0", "model.max_tokens=2", "seed=-1", "seed=4294967296",
    ],
)  # fmt: skip
def test_out_of_range(override: str) -> None:
    """The sentence names the setting."""
    with pytest.raises(MirrorError, match=override.partition("=")[0]):
        check_parts(compose("train", [override]))


@pytest.mark.parametrize(
    "override",
    ["aug.span_k=0", "aug.dropout=0", "loss.temperature=100", "batch.size=2", "data.size=null", "seed=0"],
)
def test_ends_of_the_ranges(override: str) -> None:
    compose("train", [override])


def test_hub_that_cannot_be_reached_is_told_within_seconds(tiny_bert: Path, tmp_path: Path) -> None:
    """A real command on a machine without a network; a closed port stands for it."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "https://localhost:9", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "model=bert", "data.path=texts.txt", "eval=none"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_refused(Result(result.returncode, result.stdout, result.stderr), "hub cannot be reached", "local folder")
    (record,) = tmp_path.rglob("metrics.json")
    content = json.loads(record.read_text(encoding="utf-8"))
    assert content["status"] == "failed"
    assert content["seconds"]["load"] < 10  # the promise, without the imports


def test_encode(command: Command, encoder: Path, tmp_path: Path) -> None:
    """One row a line, also for an empty line; nothing else is left behind."""
    lines = [*SENTENCES[:5], "", "été\u2028one line", "漢字"]
    (tmp_path / "lines.txt").write_bytes("\n".join(lines).encode() + b"\r\n")
    (tmp_path / "vectors.npy.partial").write_text("mine")
    before = {entry.name for entry in tmp_path.iterdir()}
    result = command("encode", f"encoder={encoder}", "input=lines.txt", "output=vectors.npy")
    assert (tmp_path / "vectors.npy.partial").read_text() == "mine"
    assert result.code == 0
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(lines), 32)
    np.testing.assert_allclose(vectors, MirrorEncoder.load(encoder).encode(lines), atol=1e-6)
    assert {entry.name for entry in tmp_path.iterdir()} - before == {"vectors.npy"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["input=nothing.txt"], "input=nothing.txt cannot be read"),
        (["input=."], "input=. is a folder"),
        (["input=empty.txt"], "input=empty.txt is empty"),
        (["input=latin.txt"], "input=latin.txt is not UTF-8"),
        (["input=texts.txt", "output=texts.txt"], "output=texts.txt exists already"),
        (["input=texts.txt", "output=no/folder/v.npy"], "does not exist"),
        (["input=texts.txt", "encoder=no/such/encoder"], "no/such/encoder does not exist"),
        (["input=texts.txt", "max_tokens=0"], "max_tokens=0"),
        ([], "input is not set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_encode_refuses(command: Command, encoder: Path, tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin1"))
    before = {entry.name: entry.stat().st_size for entry in tmp_path.iterdir()}
    result = command("encode", f"encoder={encoder}", "output=vectors.npy", *arguments)
    assert_refused(result, reason)
    assert {entry.name: entry.stat().st_size for entry in tmp_path.iterdir()} == before


def test_encode_without_an_encoder(command: Command) -> None:
    assert_refused(command("encode", "input=texts.txt", "output=v.npy"), "encoder is not set")


@pytest.fixture
def sts(tmp_path: Path) -> list[float]:
    """A small STS-B in ``data/``, and its gold scores."""
    gold = [float(i % 6) for i in range(30)]
    rows = [f"{score}\t{SENTENCES[i]}\t{SENTENCES[i + int(score)]}" for i, score in enumerate(gold)]
    (tmp_path / "data" / "sts").mkdir(parents=True)
    for name in ("stsb-dev", "stsb-test"):
        table = "\n".join(["score\tsentence1\tsentence2", *rows]) + "\n"
        (tmp_path / "data" / "sts" / f"{name}.tsv").write_text(table, encoding="utf-8")
    return gold


def test_evaluate(command: Command, encoder: Path, tmp_path: Path, sts: list[float]) -> None:
    from scipy.stats import spearmanr

    result = command("evaluate", f"encoder={encoder}", "eval=stsb", "eval.data_dir=data", "hydra.run.dir=run")
    assert result.code == 0
    loaded = MirrorEncoder.load(encoder)
    cosines = [loaded.similarity(SENTENCES[i], SENTENCES[i + int(gold)]).item() for i, gold in enumerate(sts)]
    expected = 100 * spearmanr(cosines, sts).statistic
    content = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert content["status"] == "finished"
    assert content["scores"]["mean"]["stsb-test"]["all"] == pytest.approx(expected, abs=0.3)  # ties by rounding
    assert f"{content['scores']['mean']['stsb-test']['all']:.2f}" in result.err


@pytest.mark.usefixtures("sts")
def test_evaluate_on_the_further_sets(command: Command, encoder: Path, tmp_path: Path) -> None:
    further = ["eval=none", "eval.with_data_dir=[stsb-dev]", "eval.data_dir=data", "hydra.run.dir=run"]
    assert command("evaluate", f"encoder={encoder}", *further).code == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert content["scores"]["mean"].keys() == {"stsb-dev"}


def test_search_for_words_typed_without_quotes(command: Command, encoder: Path) -> None:
    result = command("search", "a", "man,", "at", "home", "input=texts.txt", f"encoder={encoder}", "top=2")
    assert result.code == 0
    assert "a man, at home  (among 240 texts)" in result.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["eval=none"], "eval=none measures nothing"),
        (["eval=sts", "eval.data_dir=data"], "lacks sts/sts12.tsv"),
        (["eval=words"], "eval.data_dir"),
        (["eval=stsb", "eval.data_dir=data", "encoder=no/such/encoder"], "no/such/encoder does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("sts")
def test_evaluate_refuses(command: Command, encoder: Path, arguments: list[str], reason: str) -> None:
    assert_refused(command("evaluate", f"encoder={encoder}", *arguments), reason)


def test_evaluate_without_an_encoder(command: Command) -> None:
    assert_refused(command("evaluate"), "encoder is not set")


PRETRAIN = [
    "size=tiny", "model.hidden=32", "model.intermediate=64", "tokenizer.vocab_size=150", "batch.tokens=300",
    "batch.max_tokens=32", "held_out.texts=10", "trainer=cpu", "trainer.progress=false", "trainer.max_steps=3",
]  # fmt: skip


def test_pretrain_then_train(command: Command, tmp_path: Path) -> None:
    result = command("pretrain", *PRETRAIN, "data.path=texts.txt", "hydra.run.dir=raw")
    assert result.code == 0, result.err
    assert "3 steps of 300 tokens" in result.err
    python, script, *typed = shlex.split(result.err.splitlines()[-1])  # a whole command
    assert (python, script) == ("python", "scripts/train.py")
    assert typed == [f"model.path={tmp_path}/raw/model", "data.path=texts.txt"]
    result = command("train", *typed, *SMALL, "hydra.run.dir=run")
    assert result.code == 0, result.err
    assert f"as for its {TUNING}: " in result.err
    assert (tmp_path / "run" / "encoder").is_dir()


def test_pretrain_on_pairs(command: Command, tmp_path: Path) -> None:
    """The pairs are what the model is tuned with then."""
    pairs = "".join(f"{left}||{right}\n" for left, right in pairwise(SENTENCES))
    (tmp_path / "pairs.txt").write_text(pairs, encoding="utf-8")
    typed = ["objective=tlm", "data=pairs", "data.path=pairs.txt", "hydra.run.dir=raw"]
    result = command("pretrain", *PRETRAIN, *typed)
    assert result.code == 0, result.err
    *_, last = result.err.splitlines()
    assert shlex.split(last)[2:] == [
        f"model.path={tmp_path}/raw/model",
        "data.path=pairs.txt",
        "data.pair_separator='||'",
    ]
    assert command("train", *shlex.split(last)[2:], *SMALL, "hydra.run.dir=run").code == 0


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        ([], ["data.path is not set"]),
        (["data.path=empty.txt"], ["empty.txt is empty"]),
        (["data.path=texts.txt", "data.pair_separator='||'"], ["mean nothing to pre-training"]),
        (["data.path=texts.txt", "objective=tlm"], ["tlm", "reads pairs of translations", "data=pairs"]),
        (["data.path=same.txt", "data=pairs", "objective=tlm"], ["the two texts of each pair are the same"]),
        (["data.path=texts.txt", "objective=electra", "model.path=x"], ["begins a new model", "model.path"]),
        (["data.path=texts.txt", "objective=electra", "objective.generator=2"], ["objective.generator=2", "at most 1"]),
        (["data.path=texts.txt", "objective=retromae", "objective.share=1"], ["objective.share=1", "below 1"]),
        (["data.path=texts.txt", "objective=retromae", "objective.pooling=max"], ["pooling", "mean or cls"]),
        (["data.path=texts.txt", "objective._target_=math.sqrt"], ["math.sqrt", "derive its class from that"]),
        (["data.path=texts.txt", "masking.share=1.5"], ["masking.share=1.5", "below 1"]),
        (["data.path=texts.txt", "masking.final_share=0"], ["masking.final_share=0", "above 0"]),
        (["data.path=texts.txt", "average_last=1.5"], ["average_last=1.5", "a number of steps, or a share"]),
        (["data.path=texts.txt", "bag_of_words=-1"], ["bag_of_words=-1", "0 (off) or more"]),
        (["data.path=texts.txt", "bags.neighbours=true"], ["set bag_of_words=1"]),
        (
            ["data=pairs", "data.path=texts.txt", "objective=tlm", "bag_of_words=1", "bags.neighbours=true"],
            ["bags.neighbours=true", "leave it out"],
        ),
        (["data.path=texts.txt", "bag_of_words=1", "bags.sample=0"], ["bags.sample=0", "above 0 and at most 1"]),
        (["data.path=texts.txt", "model.heads=5"], ["model.hidden=32", "model.heads=5"]),
        (["data.path=texts.txt", "batch.max_tokens=600", "batch.tokens=1000"], ["model.positions=512"]),
        (["resume=nowhere"], ["resume=nowhere", "no run"]),
    ],
)
def test_pretrain_refuses(command: Command, tmp_path: Path, arguments: list[str], reasons: list[str]) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "same.txt").write_text("".join(f"{text}||{text}\n" for text in SENTENCES), encoding="utf-8")
    assert_refused(command("pretrain", *PRETRAIN, *arguments), *reasons)


def test_pretrain_goes_on(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder alone says how to go on; a finished run has nothing to go on from."""
    from mirror.pretraining.module import PretrainModule

    def stop(self: PretrainModule, *arguments: object) -> None:
        if self.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "on_train_batch_end", stop)
        assert command("pretrain", *PRETRAIN, "data.path=texts.txt", "hydra.run.dir=raw").code != 0
    result = command("pretrain", "resume=raw")
    assert result.code == 0, result.err
    assert "going on from step 2" in result.err
    assert (tmp_path / "raw" / "model").is_dir()
    assert_refused(command("pretrain", "resume=raw"), "raw has no checkpoint")


def test_train_goes_on(command: Command, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pre-training does; a sweep cannot, and a setting that the run began with stays."""
    from mirror.training.module import MirrorModule

    def stop(self: MirrorModule, *arguments: object) -> None:
        if self.global_step == 2:
            raise KeyboardInterrupt

    begun = [f"model.path={tiny_bert}", *SMALL, "data.path=texts.txt", "hydra.run.dir=run"]
    with monkeypatch.context() as patched:
        patched.setattr(MirrorModule, "on_train_batch_end", stop)
        assert command("train", *begun).code != 0
    assert_refused(command("train", "resume=run", "optim.lr=1e-4"), "optim.lr=1e-4 cannot be changed by resume=run")
    assert_refused(command("train", "-m", "resume=run", "trainer.max_epochs=1"), "cannot be swept")
    assert_refused(command("train", "resume=nowhere"), "resume=nowhere", "no run")
    result = command("train", "resume=run")
    assert result.code == 0, result.err
    assert "going on from step 2 of 3" in result.err
    assert (tmp_path / "run" / "encoder").is_dir()
    assert_refused(command("train", "resume=run"), "run has no checkpoint")


def test_search(command: Command, encoder: Path) -> None:
    result = command("search", "who's there, or isn't?", "input=texts.txt", f"encoder={encoder}", "top=2")
    assert result.code == 0, result.err
    assert "who's there, or isn't?" in result.out
    assert "among 240 texts" in result.out


def test_version_is_mirrors(command: Command) -> None:
    from mirror import __version__

    assert __version__ in command("train", "--version").out


def test_encode_by_the_name_of_a_model(command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert command("encode", "encoder=mini", f"input={tmp_path}/texts.txt", f"output={tmp_path}/v.npy").code == 0


@pytest.mark.parametrize(
    ("name", "arguments", "reasons"),
    [
        ("train", ["batch.workers=999"], ["batch.workers=999", "from 0 to 128"]),
        ("train", ["trainer.nodes=2"], ["trainer.nodes=2 needs a process for each device"]),
        ("train", ["logger.tags=['']"], ["logger.tags holds ''"]),
        ("train", ["logger.project=a/b"], ["logger.project=a/b"]),
        ("train", ["data.split=test"], ["data.split=test is for data sets of the hub"]),
        ("train", ["data.name=x"], ["data.name=x is for data sets of the hub"]),
        ("train", ["select=best", "eval.validation=nosuch"], ["eval.validation has 'nosuch'", "no set"]),
        ("train", ["eval.sets=[own/pairs.tsv]", "eval.validation=pairs"], ["set eval.validation=own/pairs.tsv"]),
        ("train", ["select=best"], ["eval.validation=stsb-dev", "or set select=last"]),
        ("train", ["eval.dictionary=/nope"], ["eval.dictionary=/nope is no file"]),
        ("pretrain", ["model.layers=1000000"], ["model.layers=1000000", "from 1 to 1000"]),
        ("pretrain", ["model.hidden=100000000"], ["model.hidden=100000000", "from 1 to"]),
        ("pretrain", ["model.layers=1000", "model.hidden=65536"], ["billion weights", "lower them"]),
        ("train", ["seed=range(0,1000000000)", "-m"], ["1,000,000,000 runs", "max_runs="]),
        ("train", ["optim.lr=interval(1e-3,1e-5)", "-m"], ["optim.lr=interval(1e-3,1e-5)", "sweep=optuna"]),
        ("train", ["seed=1,2", "hydra.sweeper.max_batch_size=-1", "-m"], ["hydra.sweeper.max_batch_size=-1"]),
        ("train", ["sweep=optuna", "hydra.sweeper.trials=abc", "-m"], ["hydra.sweeper.trials=abc"]),
        ("train", ["sweep=optuna", "hydra.sweeper.time=maybe", "-m"], ["hydra.sweeper.time=maybe"]),
        ("train", ["sweep=optuna", "optim.lr=interval(1e-4,inf)", "-m"], ["optim.lr=interval(1e-4,inf)", "finite"]),
        ("train", ["sweep=optuna", "optim.lr=interval(1e-3,1e-5)", "-m"], ["optim.lr=interval(1e-3,1e-5)"]),
    ],
)  # fmt: skip
def test_sizes_and_searches_that_cannot_be_meant(
    command: Command, tiny_bert: Path, name: str, arguments: list[str], reasons: list[str]
) -> None:
    model = [f"model.path={tiny_bert}", "eval=none"] if name == "train" else []
    assert_refused(command(name, *model, "data.path=texts.txt", *arguments), *reasons)


def test_damaged_search_is_named(command: Command, tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "search.db").write_text("no database")
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "hydra.sweep.dir=mine"]
    arguments += ["eval.sets=[stsb-dev]", f"eval.data_dir={eval_dir}"]
    assert_refused(command("train", "-m", "sweep=optuna", *arguments), "search.db cannot be read", "move it away")
    assert (tmp_path / "mine" / "search.db").read_text() == "no database"


def test_padded_mean_needs_a_width(command: Command, tiny_bert: Path) -> None:
    arguments = [f"encoder={tiny_bert}", "input=texts.txt", "output=vectors.npy", "pooling=mean_padded"]
    assert_refused(command("encode", *arguments), "pooling=mean_padded", "depend on its neighbours")


def test_folder_of_a_run_is_not_its_encoder(command: Command, encoder: Path) -> None:
    arguments = [f"encoder={encoder.parent}", "input=texts.txt", "output=vectors.npy"]
    assert_refused(command("encode", *arguments), f"did you mean encoder={encoder.parent}/encoder?")


def test_utf_16_is_named_with_its_conversion(command: Command, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.txt").write_text("\n".join(SENTENCES), encoding="utf-16")
    told = "iconv -f utf16 -t utf8"
    assert_refused(command("train", f"model.path={encoder}", "data.path=wide.txt", *SMALL), "data.path=wide.txt", told)
    assert_refused(command("encode", f"encoder={encoder}", "input=wide.txt", "output=v.npy"), "input=wide.txt", told)


def test_warm_up_longer_than_the_run_is_told(command: Command, tiny_bert: Path) -> None:
    arguments = [f"model.path={tiny_bert}", "data.path=texts.txt", *SMALL, "schedule.warmup_steps=1000"]
    result = command("train", *arguments)
    assert result.code == 0
    assert "schedule.warmup_steps=1000 is not less than the 3 steps" in result.err


def test_a_long_list_of_values_is_no_path(command: Command) -> None:
    """Longer than a file's name may be; the sweep itself is what is refused here."""
    seeds = ",".join(map(str, range(1, 200)))
    assert_refused(command("train", "-m", f"seed={seeds}", "max_runs=3"), "The sweep has 199 runs")
