"""MTEB's own evaluators with our encoders, and a saved encoder in MTEB as it is; on a task that needs no download."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mirror import MirrorEncoder, MirrorError
from mirror.apply import evaluate
from mirror.config.compose import compose
from mirror.evaluation.mteb_tasks import _Model, load_tasks, run_tasks
from mirror.evaluation.sets import load_sets
from mirror.report.details import mteb_table
from tests.conftest import ROOT

mteb = pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def task(eval_dir: Path) -> Any:
    """The twenty pairs of our small STS-B as a task of MTEB's."""
    import csv

    import datasets

    with (eval_dir / "sts" / "stsb-dev.tsv").open(encoding="utf-8") as file:
        rows = [{**row, "score": float(row["score"])} for row in csv.DictReader(file, delimiter="\t")]
    own = mteb.get_task("STSBenchmark")
    own.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
    own.data_loaded = True
    return own


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_mteb_gives_our_score(task: Any, tiny_bert: Path, eval_dir: Path, pooling: str) -> None:
    encoder = MirrorEncoder.load(tiny_bert, pooling)
    (ours,) = load_sets(["stsb-dev"], str(eval_dir))
    found = run_tasks([task], encoder.encode, "outputs/a/b")
    assert found == {"STSBenchmark": pytest.approx(ours.score(encoder.encode).value, abs=0.5)}


def test_saved_encoder_runs_in_mteb_as_it_is(task: Any, tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = MirrorEncoder.load(tiny_bert, "mean")
    encoder.save(tmp_path / "encoder")
    model = SentenceTransformer(str(tmp_path / "encoder"))
    results = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (ours,) = load_sets(["stsb-dev"], str(eval_dir))
    score = 100 * results.task_results[0].get_score()
    assert score == pytest.approx(ours.score(encoder.encode).value, abs=0.5)


def test_from_the_command(
    task: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """MTEB's results are kept in its own layout, and what an encoder has there is not run again."""
    monkeypatch.setattr("mirror.apply.load_tasks", lambda names: [task])
    kept = tmp_path / "results of mteb"
    typed = ["eval=none", "eval.mteb=['MTEB(eng, v2)']", f"mteb_results='{kept}'"]  # as docs/howto/measure.md has it

    def run(pooling: str, folder: str) -> dict[str, float]:
        (tmp_path / folder).mkdir()
        evaluate(compose("evaluate", [f"encoder='{tiny_bert}'", f"pooling={pooling}", *typed]), tmp_path / folder)
        content = json.loads((tmp_path / folder / "metrics.json").read_text(encoding="utf-8"))
        assert content["mteb"].keys() == {pooling}
        found: dict[str, float] = content["mteb"][pooling]
        return found

    with caplog.at_level("INFO"):
        first = run("mean", "one")
    assert f"{first['STSBenchmark']:.2f}" in caplog.text
    assert str(kept) in caplog.text
    (written,) = kept.glob("results/mirror__*/*/STSBenchmark.json")
    other = run("cls", "two")  # another encoder, beside the first
    assert other != first
    assert len(list(kept.glob("results/mirror__*/*/STSBenchmark.json"))) == 2
    (written.parent / "model_meta.json").read_text(encoding="utf-8")
    monkeypatch.setattr(MirrorEncoder, "encode", lambda *_, **__: pytest.fail("is run again"))
    assert run("mean", "three") == pytest.approx(first, abs=1e-3)  # MTEB rounds what it writes


def test_nothing_is_kept(task: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.apply.load_tasks", lambda names: [task])
    monkeypatch.chdir(tmp_path)
    typed = ["eval=none", "eval.mteb=[STSBenchmark]", "mteb_results=null", "pooling=mean"]
    evaluate(compose("evaluate", [f"encoder='{tiny_bert}'", *typed]), tmp_path)
    assert not (tmp_path / "outputs").exists()


def test_benchmark_is_all_its_tasks() -> None:
    tasks = [task.metadata.name for task in load_tasks(["MTEB(eng, v2)", "STS12", "SICK-R"])]
    assert len(tasks) == len(set(tasks)) == 41
    assert {"STS12", "SICK-R", "Banking77Classification"} <= set(tasks)


def test_mean_stands_below_several_tasks() -> None:
    table = mteb_table({"one": {"STS12": 20.0, "STS13": 40.0}, "other": {"STS12": 1.0, "STS13": 2.0}}, "MTEB")
    assert re.search(r"mean over tasks\W+30\.00\W+1\.50", table)
    assert "mean" not in mteb_table({"one": {"STS12": 20.0}}, "MTEB")


@pytest.mark.parametrize(
    ("name", "written"), [("someone/encoder", "someone/encoder"), ("outputs/run/encoder", "mirror/outputs_run_encoder")]
)
def test_name_in_the_results(name: str, written: str, task: Any, tiny_bert: Path, tmp_path: Path) -> None:
    run_tasks([task], MirrorEncoder.load(tiny_bert).encode, name, tmp_path, "abc")
    assert (tmp_path / "results" / written.replace("/", "__") / "abc" / "STSBenchmark.json").is_file()


def test_every_kind_of_task_takes_our_encoders(tiny_bert: Path) -> None:
    """MTEB's own check of a model, on made-up data: classification, clustering, retrieval, summaries and others."""
    from mteb.mocks.mock_run import mock_run

    results = mock_run(_Model(MirrorEncoder.load(tiny_bert).encode, "tiny", "abc")).task_results
    kinds = {name: type(result).__name__ for name, result in results.items() if result is not None}
    assert [name for name, kind in kinds.items() if kind == "TaskError"] == []
    assert len(kinds) > 20


def test_command_of_mteb_that_the_page_shows() -> None:
    """``mteb run`` takes a pushed encoder; its options are those of docs/howto/measure.md."""
    from mteb.cli.build_cli import build_cli

    (line,) = re.findall(r"^mteb (run .*)$", (ROOT / "docs" / "howto" / "measure.md").read_text("utf-8"), re.MULTILINE)
    typed = build_cli().parse_args(shlex.split(line))
    assert typed.benchmarks == ["MTEB(eng, v2)"]
    assert typed.model == "your-name/your-encoder"


def test_unknown_task() -> None:
    with pytest.raises(MirrorError, match=r"eval\.mteb has STSBenchmrk, which is no task or benchmark"):
        load_tasks(["STSBenchmrk"])


def test_without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    with pytest.raises(MirrorError, match=r"pip install 'mirror-encoders\[mteb\]'"):
        load_tasks(["STSBenchmark"])


def test_task_on_a_hub_that_does_not_answer(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MirrorError, match="SICK-R is on the hub, which cannot be reached"):
        run_tasks(load_tasks(["SICK-R"]), MirrorEncoder.load(tiny_bert).encode, "x")
