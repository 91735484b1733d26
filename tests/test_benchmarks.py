import importlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pages import summary
from benchmarks.side_by_side import COMMON, SETS, Row, averages_of, measured, side_by_side, table
from benchmarks.step_times import STEP, TABLES, ratios
from mirror.config.compose import compose
from mirror.runs.record import TRAINABLE
from mirror.training.parts import check_parts
from tests.conftest import ROOT, SENTENCES
from tests.helpers import pairs_of


@pytest.mark.slow
def test_training_step_compares_three_ways_of_learning_from_the_same_texts(tiny_bert: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.training_step", "--rounds", "2", "--batch", "8"]
    command += ["--model", str(tiny_bert), "--data", str(texts), "--results", str(tmp_path / "results")]

    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

    (path,) = (tmp_path / "results").iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.name.endswith("-training_step-bert-cpu.json")
    assert content["texts"]["kept"] == len(SENTENCES)
    results = content["results"]
    assert list(results) == ["mirror", "authors", "simcse"]
    assert all(name in run.stdout for name in results)
    for result in results.values():
        assert all(math.isfinite(loss) for loss in result["losses"])
        assert result["total_seconds"]["median"] > 0
        assert result["peak_mib"] >= result["loaded_mib"] > 0
    assert results["mirror"]["times_mirror"]["median"] == 1
    # The same loss over the same vectors, but for dropout and the masked spans: the contenders do the same work.
    assert results["authors"]["losses"][0] == pytest.approx(results["mirror"]["losses"][0], rel=0.2)


def results(module: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a benchmark leaves, oldest first."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--results", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir())]


@pytest.mark.slow
def test_whole_run_compares_commands(tiny_bert: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:40]), encoding="utf-8")
    options = ["--model", str(tiny_bert), "--data", str(texts), "--batch", "16", "--rounds", "1"]
    (content,) = results("whole_run", tmp_path / "results", *options)
    assert list(content["results"]) == ["mirror", "authors", "simcse"]
    assert content["results"]["mirror"]["times_mirror"]["median"] == 1
    assert all(found["seconds"]["median"] > 0 for found in content["results"].values())
    assert [found["steps"] for found in content["results"].values()] == [3, 3, 3]


@pytest.mark.slow
def test_growth_measures_each_value_alone(tiny_bert: Path, tmp_path: Path) -> None:
    options = ["--axis", "batch", "--values", "8", "16", "--micro", "4", "--shape", "tiny", "--rounds", "1"]
    (content,) = results("growth", tmp_path, *options, "--draft", str(tiny_bert))
    assert list(content["points"]) == ["8", "16"]
    assert [point["texts"] for point in content["points"].values()] == [16, 32]
    for point in content["points"].values():
        assert point["step_seconds"] > 0
        assert point["peak_mib"] >= point["step_mib"] >= 0
    assert math.isfinite(content["slopes"]["step_seconds"])


@pytest.mark.slow
def test_every_gpu_row_is_measured(tiny_bert: Path, data_dir: Path, tmp_path: Path) -> None:
    """On the CPU, in small: the script and every benchmark that it calls."""
    *rows, summary = results("gpu", tmp_path, "--device", "cpu", "--small", "--draft", str(tiny_bert))
    assert len(rows) == 6
    assert len(summary["rows"]) == 11
    for row in summary["rows"]:
        assert math.isfinite(row["value"])
        assert (row["met"] is None) is not bool(row["target"])
    (utilisation,) = (row["value"] for row in summary["rows"] if row["row"].startswith("utilisation"))
    assert 0 < utilisation < 1


def test_slopes_are_those_of_powers() -> None:
    from benchmarks.growth import COLUMNS, slopes

    points = {str(n): dict.fromkeys(COLUMNS, 0.0) | {"step_seconds": 3.0 * n**2, "peak_mib": 7.0} for n in (2, 4, 8)}
    assert slopes(points) == {"step_seconds": pytest.approx(2), "peak_mib": pytest.approx(0)}


def test_useful_work_is_what_a_counter_counts(tiny_bert: Path) -> None:
    """Each text alone and unpadded, forward, so that the counter meets nothing but useful work."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.utilisation import useful
    from mirror import MirrorEncoder
    from mirror.config import BatchConfig
    from mirror.data.batches import BatchKey

    encoder = MirrorEncoder.load(tiny_bert)
    encoder.backbone.set_attn_implementation("eager")
    texts = [(text, text) for text in SENTENCES[:6]]
    batch = pairs_of(texts, encoder, BatchConfig(size=6), span_k=0)[BatchKey(0, 0)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for text, _ in 2 * texts:
            encoder.backbone(**encoder.tokenizer(text, return_tensors="pt"))
    pooler = 2 * encoder.dimension**2 * 12  # no part of the encoder
    similarity = 2 * 12**2 * encoder.dimension
    assert useful(batch, encoder) == pytest.approx(3 * (counter.get_total_flops() - pooler + similarity))


def test_mark_is_against_the_better_raw_model() -> None:
    from benchmarks.evaluation import _against_best, _mark

    def found(against: str, difference: float, p: float) -> dict[str, object]:
        return {"set": "sts12", "against": against, "difference": difference, "p_holm": p}

    (best,) = _against_best({"comparisons": [found("raw cls", 9.0, 0.001), found("raw mean", 2.0, 0.03)]})
    assert best["against"] == "raw mean"
    assert _mark(best) == " *"
    assert _mark(found("raw mean", -3.0, 0.001)) == " −**"
    assert _mark(found("raw mean", 3.0, 0.2)) == _mark(None) == ""


@pytest.mark.slow
def test_evaluation_makes_the_table(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.evaluation", "--only", "recipes"]
    command += ["--seeds", "2", "--eval", "stsb", "--recipes", "defaults", "defaults, tests excluded"]
    command += ["--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--set"]
    command += [f"data.path={tmp_path / 'texts.txt'}", "data.size=48", "batch.size=16", "trainer=cpu"]
    command += ["model=bert", f"model.path={tiny_bert}"]
    environment = {**os.environ, "MIRROR_DATA": str(eval_dir)}

    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)

    head, _, dev, *_ = run.stdout.splitlines()
    columns = ["", "raw cls", "raw mean", "defaults", "defaults, tests excluded"]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == columns
    cells = [cell.strip() for cell in dev.split("|")[1:-1]]
    assert cells[0] == "stsb-dev"
    assert "±" in cells[3]
    assert "†" in cells[3]
    assert "†" not in cells[4]
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(path.read_text(encoding="utf-8"))["recipes"]["runs"]["defaults"]["seeds"].keys() == {"42", "43"}


def row_of(averages: list[float]) -> dict[str, Any]:
    """A row's results whose sets all have the same score, by seed."""
    scores = {str(seed): dict.fromkeys(SETS, value) for seed, value in enumerate(averages)}
    return {"chosen": ["optim.lr=0.001"], "scores": scores}


def test_rows_of_other_weights_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"first": {"weights": "another"}}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["table", "--results", str(results), "--only"])
    with pytest.raises(SystemExit):
        side_by_side("table", {"first": Row((), ())}, "")
    assert "results.json is of other weights of mini" in capsys.readouterr().err


def test_a_table_has_gains_over_the_reference_and_holms_p() -> None:
    found = {"first": row_of([1, 2, 4]), "better": row_of([2, 3.5, 5]), "worse": row_of([1, 0, 3])}
    head, rows = table(found, "first")
    cells = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert cells["better"]["average of 7"] == "3.50 ± 1.50"
    assert [cells[name]["gain"] for name in found] == ["", "+1.17", "-1.00"]
    # Of three pairs: t = mean / (sd / sqrt(3)) with two degrees of freedom, whose tail is known in closed form.
    raw = {}
    for name in ("better", "worse"):
        pairs = zip(found[name]["scores"].values(), found["first"]["scores"].values(), strict=True)
        gains = [own["sts12"] - other["sts12"] for own, other in pairs]
        t = statistics.mean(gains) / (statistics.stdev(gains) / math.sqrt(3))
        raw[name] = 1 - abs(t) / math.sqrt(2 + t * t)
    low, high = sorted(raw, key=lambda name: raw[name])
    assert cells[low]["p (Holm)"] == f"{2 * raw[low]:.3f}"
    assert cells[high]["p (Holm)"] == f"{max(2 * raw[low], raw[high]):.3f}"


@pytest.mark.slow
def test_choices_are_searched_once_and_seeds_are_added(data_dir: Path, tmp_path: Path) -> None:
    row = Row(("adapt=bitfit",), ("optim.lr=1e-3,1e-2",))
    further = ["data.size=120", "batch.size=40"]
    known = measured(row, {}, tmp_path, ["1"], further)
    assert known["chosen"] == [max(known["dev"], key=lambda trial: known["dev"][trial])]
    assert known["dev"].keys() == {"optim.lr=0.001", "optim.lr=0.01"}
    assert set(SETS) <= known["scores"]["1"].keys()
    first = dict(known["scores"]["1"])
    shutil.rmtree(tmp_path / "search")
    known = measured(row, known, tmp_path, ["1", "2"], further)
    assert not (tmp_path / "search").exists()
    assert known["scores"].keys() == {"1", "2"}
    assert known["scores"]["1"] == first != known["scores"]["2"]
    assert known["trainable"]["share"] < 0.01


@pytest.mark.slow
def test_steps_are_timed_in_turn() -> None:
    """Batches of 20 texts: a step over 80 of them takes longer, and one with frozen weights does not."""
    small = ("data.size=1000", "batch.size=20")
    rows = {
        "defaults": Row(small, ()),
        "larger": Row((*small, "batch.size=80"), ()),
        "lora": Row((*small, "adapt=lora"), ()),
    }
    found = ratios(rows, 2)
    assert list(found) == ["larger", "lora"]
    assert all(len(values) == 2 for values in found.values())
    assert statistics.median(found["larger"]) > statistics.median(found["lora"])


def test_a_page_shows_what_was_measured() -> None:
    """Of a row without training the costs of training stay empty; what no row has is left out."""
    scores = {seed: dict.fromkeys(SETS, 60.0 + int(seed)) for seed in ("1", "2")}
    bare = {"scores": scores, "chosen": ["optim.lr=0.001"], "peak_memory_mib": 1200}
    found = {"first": {**bare, STEP: {"times_reference": 1.5}}, "second": bare}
    averages = {name: averages_of(result) for name, result in found.items()}
    head, rows = summary(found, averages, ["second", "first"], {"second": 0.04})
    assert head[-2:] == ["step", "peak, MiB"]
    assert rows[0][-4:] == ["+0.00", "0.040", "", "1,200"]
    found["first"][TRAINABLE] = {"share": 0.25, "optimizer_bytes": 2**20}
    head, rows = summary(found, averages, ["second", "first"], {"second": 0.04})
    assert head[-4:] == ["learns", "optimizer, MiB", "step", "peak, MiB"]
    assert rows[1][-4:] == ["25.0 %", "1.00", "1.50", "1,200"]


@pytest.mark.parametrize("table", TABLES)
def test_every_row_composes(table: str) -> None:
    rows: dict[str, Row] = importlib.import_module(f"benchmarks.{table}").ROWS
    for name, row in rows.items():
        trial = [f"{key}={values.split(',')[0]}" for key, values in (axis.split("=") for axis in row.axes)]
        config = compose("train", [*COMMON, *row.settings, *trial])
        check_parts(config)
        assert config.model.path == "bundled:mini" or "keep_layers" in " ".join(row.settings), name
