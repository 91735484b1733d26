"""MTEB's own evaluators with our encoders, and a saved encoder in MTEB as it is; on a task that needs no download."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror import MirrorEncoder, MirrorError
from mirror.apply import evaluate
from mirror.config.compose import compose
from mirror.evaluation.mteb_tasks import load_tasks, run_tasks
from mirror.evaluation.sets import load_sets

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
    monkeypatch.setattr("mirror.apply.load_tasks", lambda names: [task])
    with caplog.at_level("INFO"):
        overrides = ["eval=none", "eval.mteb=[STSBenchmark]", "pooling=mean"]
        evaluate(compose("evaluate", [f"encoder='{tiny_bert}'", *overrides]), tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert content["mteb"].keys() == {"mean"}
    assert f"{content['mteb']['mean']['STSBenchmark']:.2f}" in caplog.text


def test_unknown_task() -> None:
    with pytest.raises(MirrorError, match=r"eval\.mteb: .*STSBenchmrk"):
        load_tasks(["STSBenchmrk"])


def test_without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    with pytest.raises(MirrorError, match=r"pip install 'mirror-encoders\[mteb\]'"):
        load_tasks(["STSBenchmark"])


def test_task_on_a_hub_that_does_not_answer(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MirrorError, match="SICK-R is on the hub, which cannot be reached"):
        run_tasks(load_tasks(["SICK-R"]), MirrorEncoder.load(tiny_bert).encode, "x")
