"""The report over many runs: what is averaged, what is kept apart, and the page in a real browser."""

import csv
import io
import json
import logging
import math
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirror import MirrorError
from mirror.config import ReportConfig
from mirror.evaluation.certainty import p_value
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED
from mirror.report import report
from mirror.report.files import _bold, latex, markdown, runs_csv, table_csv
from mirror.report.runs import collect
from mirror.report.summary import summary_table
from mirror.report.table import Cell, compare, varying
from mirror.report.workspace import workspace
from tests.commands import Command, assert_refused
from tests.sweep_runs import write_run, write_sweep

AXES: dict[str, list[Any]] = {"loss.temperature": [0.02, 0.04, 0.2], "data.size": [1000, 20000], "seed": [1, 2, 3]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen finished runs, one that failed, one that runs."""
    folder = tmp_path_factory.mktemp("sweeps") / "grid"
    write_sweep(folder, AXES)
    write_run(folder, ["loss.temperature=0.5"], status="failed", error="MirrorError: the loss is <nan>", scores={})
    write_run(folder, ["loss.temperature=0.6"], status="running", scores={})
    return folder


def scores(folder: Path, name: str, **settings: Any) -> list[float]:
    """The scores of the runs with these settings, straight from their files."""
    found = []
    for path in folder.glob("*/metrics.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        here = {"temperature": run["config"]["loss"]["temperature"], "size": run["config"]["data"]["size"]}
        if settings.items() <= here.items() and run["status"] == "finished":
            found.append((run["seed"], run["scores"]["tuned"][name]["all"]))
    return [score for _, score in sorted(found)]


def test_rows_are_averages_over_seeds(sweep: Path) -> None:
    (comparison,) = compare(collect([sweep]).runs)
    assert comparison.axes == ["loss.temperature", "data.size"]
    expected = [(t, size) for t in AXES["loss.temperature"] for size in AXES["data.size"]]
    assert [tuple(row.settings.values()) for row in comparison.rows] == expected
    for row in comparison.rows:
        temperature, size = row.settings.values()
        values = scores(sweep, "sts14", temperature=temperature, size=size)
        assert row.cells["sts14"].mean == pytest.approx(statistics.fmean(values))
        assert row.cells["sts14"].sd == pytest.approx(statistics.stdev(values))
        sets = [cell.mean for name, cell in row.cells.items() if name != AVERAGE]
        assert row.cells[AVERAGE].mean == pytest.approx(statistics.fmean(sets))
    assert not any(cell.best for row in comparison.rows for cell in row.cells.values())


def test_validation_set_chooses_the_best_row(tmp_path: Path) -> None:
    """Not the test, which another row wins here."""
    for temperature, dev, test in ((0.1, 70.0, 60.0), (0.2, 60.0, 70.0)):
        tuned = {name: {"all": score, "pairs": 9} for name, score in (("stsb-dev", dev), ("stsb-test", test))}
        raw = {"stsb-dev": {"all": 50.0, "pairs": 9}, "stsb-test": {"all": 40.0, "pairs": 9}}
        higher = {**raw, "stsb-test": {"all": 45.0, "pairs": 9}}
        scores = {"raw cls": raw, "raw mean": higher, "tuned": tuned}
        write_run(tmp_path, [f"loss.temperature={temperature}"], scores=scores)
    runs = collect([tmp_path]).runs
    (comparison,) = compare(runs)
    assert [[cell.best for cell in row.cells.values()] for row in comparison.rows] == [[True] * 2, [False] * 2]
    assert [row.gain("stsb-test") for row in comparison.rows] == [15, 25]
    assert [one.pooling for one in comparison.untouched] == ["cls", "mean"]
    lines = summary_table(runs).splitlines()
    first = next(line for line in lines if line.strip().startswith("0."))
    assert first.split() == ["0.1", "1", "70.00", "60.00", "+20.00"]
    assert any(line.endswith("scripts/train.py loss.temperature=0.1") for line in lines)
    assert "flatters" not in lines[-1]
    assert not any("†" in line for line in lines)


def test_printed_marks_are_explained(tmp_path: Path) -> None:
    write_run(tmp_path, ["loss.temperature=0.1"], sets=["sts12"])  # some of its texts were trained on
    printed = summary_table(collect([tmp_path]).runs)
    assert "\n† transductive: texts of the set were trained on" in printed


def test_seeds_inside_a_run(tmp_path: Path) -> None:
    """A run with seeds=3 counts as three."""
    inner = {
        str(seed): {"scores": {"sts12": {"all": 50.0 + seed, "pairs": 9}}, "loss": {"last": 1}} for seed in (1, 2, 3)
    }
    write_run(tmp_path, ["loss.temperature=0.1"], sets=["sts12"], seeds=inner)
    write_sweep(tmp_path, {"loss.temperature": [0.2], "seed": [1, 2, 3]}, sets=["sts12"])
    first, second = compare(collect([tmp_path]).runs)[0].rows
    assert (first.cells["sts12"].mean, first.cells["sts12"].sd, len(second.samples)) == (52, 1, 3)


def test_headline_is_the_recorded_one(tmp_path: Path) -> None:
    """Not the first figure of a set; records that do not know it are still read."""
    scores = {"tuned": {"own": {"first": 10.0, "quoted": 20.0, "pairs": 9}}}
    write_run(tmp_path, ["seed=1"], scores=scores, headlines={"own": "quoted"})
    write_run(tmp_path, ["seed=2"], scores=scores)
    first, second = collect([tmp_path]).runs
    assert (first.samples[0].scores, second.samples[0].scores) == ({"own": 20.0}, {"own": 10.0})


def test_average_is_marked_for_its_own_sets_alone(tmp_path: Path) -> None:
    seen = {"tuned": {"simlex999": {"exact": 5, "near": 0}}}
    write_run(tmp_path, ["loss.temperature=0.1"], sets=[*AVERAGED, "simlex999"], contamination=seen)
    (row,) = compare(collect([tmp_path]).runs)[0].rows
    assert row.cells["simlex999"].transductive
    assert not row.cells[AVERAGE].transductive


def test_baseline(tmp_path: Path) -> None:
    """The paired bootstrap on the resamples that the runs kept, averaged over seeds; Holm over the whole table."""
    draws = np.random.default_rng(1).normal(60, 1, 1000)
    kept = {0.1: (0.0, 0.0), 0.2: (1.0, 3.0), 0.3: (0.4, -0.4)}
    for temperature, shifts in kept.items():
        for seed, shift in enumerate(shifts):
            noise = np.random.default_rng(seed + int(100 * temperature)).normal(shift, 0.5, 1000)
            text = " ".join(f"{figure:.3f}" for figure in draws + noise)
            resampled = {"tuned": {"sts12": text, "sts13": text}}
            overrides = [f"loss.temperature={temperature}", f"seed={seed}"]
            write_run(tmp_path, overrides, sets=["sts12", "sts13"], resampled=resampled)
    write_run(tmp_path, ["loss.temperature=0.4"], sets=["sts12", "sts13"])  # has kept none
    (comparison,) = compare(collect([tmp_path]).runs, "loss.temperature=0.1")
    base, far, near, silent = comparison.rows
    assert [row.baseline for row in comparison.rows] == [True, False, False, False]
    assert [base.cells["sts12"].p, silent.cells["sts12"].p] == [None, None]
    figures, against = far.resampled("sts12"), base.resampled("sts12")
    assert figures is not None
    assert against is not None
    assert far.cells["sts12"].p == pytest.approx(4 * p_value(figures - against))
    assert far.cells["sts12"].significant
    assert not near.cells["sts12"].significant


def test_stars_in_every_table(tmp_path: Path) -> None:
    """They come from the resamples that the runs kept: on sts12 the second row is above the first on nearly all, on
    sts13 on half of them, whatever its score says; the third, far away, has kept none."""
    draws = np.random.default_rng(1).normal(60, 3, 1000)
    for temperature, shift, score in ((0.1, 0.0, 60.0), (0.2, 2.0, 62.0), (0.3, None, 80.0)):
        kept = {}
        if shift is not None:
            noise = np.random.default_rng(int(100 * temperature)).normal(0, 0.5, (2, 1000))
            figures = {"sts12": draws + shift + noise[0], "sts13": draws + noise[1]}
            kept = {name: " ".join(f"{figure:.3f}" for figure in found) for name, found in figures.items()}
        scores = {"tuned": {name: {"all": score, "pairs": 9} for name in ("sts12", "sts13")}}
        write_run(
            tmp_path, [f"loss.temperature={temperature}"], scores=scores, resampled={"tuned": kept}, contamination={}
        )
    page = report(ReportConfig([str(tmp_path)], baseline="loss.temperature=0.1")).read_text(encoding="utf-8")
    text, tex = ((tmp_path / "report" / name).read_text(encoding="utf-8") for name in ("table.md", "table.tex"))
    rows = ([60.0, 60.0, "", ""], [62.0, 62.0, "*", ""], [80.0, 80.0, "", ""])
    shown = [[f"{score:.2f}{star}" for score, star in zip(row[:2], row[2:], strict=True)] for row in rows]
    assert [line.split(" | ")[2:4] for line in text.splitlines() if line.startswith("| 0.")] == shown
    assert [line.split(" & ")[2:4] for line in tex.splitlines() if line.startswith("0.")] == shown
    cells = re.findall(r'<td data-order="[68][02]\.0"( title="p = [^"]*")?>([^<]*)<small>', page)
    assert [star for _, star in cells] == [star for row in shown for star in row]
    assert [bool(p) for p, _ in cells] == [False, False, True, True, False, False]
    with (tmp_path / "report" / "table.csv").open(encoding="utf-8") as file:
        tested = [float(row["p"]) < 0.05 if row["p"] else None for row in csv.DictReader(file)]
    assert tested == [None, None, True, False, None, None]


def test_published_figures_on_request(command: Command, tmp_path: Path) -> None:
    """Under the rows, named as another backbone's, each under its set; never unasked."""
    write_run(tmp_path / "runs", [])
    for asked in (False, True):
        assert command("report", "runs", f"published={str(asked).lower()}").code == 0
        page = (tmp_path / "runs" / "report" / "report.html").read_text(encoding="utf-8")
        under = page[page.index("<tfoot>") : page.index("</tfoot>")]
        assert page.count("another backbone: ") == under.count("another backbone: ") == 5 * asked
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", page[page.index('class="compared"') : page.index("</thead>")])
    (row,) = (row for row in under.split("<tr>") if "another backbone: Mirror-BERT, BERT-base" in row)
    figures = dict(zip(heads, re.findall(r"<td[^>]*>([^<]*)</td>", row), strict=True))
    assert (figures["sts12"], figures["sickr-test"], figures[AVERAGE]) == ("69.10", "69.10", "75.41")


@pytest.mark.parametrize("baseline", ["loss.temperature=0.05", "data.size=1000", "nonsense"])
def test_baseline_that_is_no_row(sweep: Path, baseline: str) -> None:
    with pytest.raises(MirrorError, match="baseline="):
        compare(collect([sweep]).runs, baseline)


def test_other_versions_and_test_sets_stand_apart(tmp_path: Path) -> None:
    settings: dict[str, list[Any]] = {"loss.temperature": [0.1, 0.2], "seed": [1, 2]}
    write_sweep(tmp_path / "a", settings)
    write_sweep(tmp_path / "b", settings, versions={"mirror": "0.2.0"})
    write_sweep(tmp_path / "c", settings, sets=["sts12"])
    comparisons = compare(collect([tmp_path]).runs)
    assert [len(row.samples) for comparison in comparisons for row in comparison.rows] == [2] * 6
    assert len({comparison.title for comparison in comparisons}) == 3
    assert sum("0.2.0" in comparison.title for comparison in comparisons) == 1


def test_what_varies(tmp_path: Path) -> None:
    """A group stands for the settings that follow from it; a setting that nobody typed shows where it differs alone."""
    write_run(tmp_path, ["aug=mirror", "seed=1", "logger=csv"])
    write_run(tmp_path, ["aug=drophead", "seed=2", "logger=tensorboard"])
    runs = collect([tmp_path]).runs
    assert varying(runs) == ["aug"]
    runs[0].settings["schedule.warmup_steps"] = 7
    assert varying(runs) == ["aug"]  # it could follow from aug
    write_run(tmp_path, ["aug=drophead", "seed=3", "schedule.warmup_steps=7"])
    assert varying(collect([tmp_path]).runs) == ["aug", "schedule.warmup_steps"]


def test_failed_attempt_does_not_hide_the_finished_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a", ["seed=1"], sets=[], status="failed", error="MirrorError: oh")
    write_run(tmp_path / "b", ["seed=1"], sets=[])
    assert sorted(run.status for run in collect([tmp_path]).runs) == ["failed", "finished"]


def test_what_is_no_run_is_named(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(sweep, folder)
    some = [path for path in sorted(folder.iterdir()) if '"finished"' in (path / "metrics.json").read_text("utf-8")]
    (some[0] / "metrics.json").write_text('{"status": "fini', encoding="utf-8")
    shutil.copytree(some[1], folder / "copy")
    for name, content in {"foreign": [1], "evaluated": {"status": "finished", "config": {"encoder": "x"}}}.items():
        (folder / name).mkdir()
        (folder / name / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    odd = json.loads((some[2] / "metrics.json").read_text(encoding="utf-8"))
    (some[2] / "metrics.json").write_text(json.dumps({**odd, "scores": {"tuned": {"sts12": 3}}}), encoding="utf-8")
    found = collect([folder])
    assert len(found.runs) == 18
    told = sorted(problem.split(": ")[-1] for problem in found.problems)
    assert len(told) == 5
    assert told.count("left out.") == 4
    assert not any("Error" in problem for problem in found.problems)
    assert "counted once." in told


def test_files(sweep: Path) -> None:
    runs = collect([sweep]).runs
    comparisons = compare(runs, "loss.temperature=0.04,data.size=1000")
    every = list(csv.DictReader(io.StringIO(runs_csv(runs))))
    assert [row["status"] for row in every].count("finished") == 18
    assert {row["error"] for row in every} == {"", "MirrorError: the loss is <nan>"}
    long = list(csv.DictReader(io.StringIO(table_csv(comparisons))))
    before = [row for row in long if row["untouched"]]
    assert {row["untouched"] for row in before} == {
        "google-bert/bert-base-uncased untouched, cls",
        "google-bert/bert-base-uncased untouched, mean",
    }
    assert len(before) == 2 * 8
    long = [row for row in long if not row["untouched"]]
    assert len(long) == 6 * 8
    assert {row["transductive"] for row in long if row["score"] in ("sts12", AVERAGE)} == {"True"}
    assert {row["transductive"] for row in long if row["score"] == "sts13"} == {"False"}
    assert all(float(row["gain"]) == pytest.approx(float(row["mean"]) - 45) for row in long if row["score"] == "sts12")
    lines = markdown(comparisons).splitlines()
    assert sum(line.startswith("| 0.") for line in lines) == 6
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert sum("(baseline)" in line for line in lines) == 1
    table = latex(comparisons, {"data.size": "size η"})
    assert r"$\tau$ & size $\eta$ & seeds & STS12 & " in table
    assert table.count(r"\\") == 9  # with a row for each pooling of the untouched model
    assert table.count(r"\multicolumn{3}{l}{") == 2
    assert r"\textbf{" not in table
    assert all(rule in table for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"$\pm$", r"\dag{}"))
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {9, 11}


def test_every_minus_in_latex_is_one() -> None:
    cell = Cell({1: -3.0, 2: -5.0}, transductive=True)
    assert _bold(cell, "{}", latex=True) == r"$-$4.00 $\pm$ 1.41\dag{}"


@pytest.mark.slow
def test_latex_compiles(sweep: Path, tmp_path: Path) -> None:
    """Pasted unedited."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex")
    table = latex(compare(collect([sweep]).runs, "loss.temperature=0.04,data.size=1000"), {})
    text = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "paper.tex").write_text(text.replace("{document}%", "{document}\n%"), encoding="utf-8")
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-1000:]


def test_figures_for_a_paper(sweep: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Vectors with text that stays text; labels as a paper has them, the user's own before the known ones."""
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    asked = ReportConfig([str(sweep)], output=str(out), figures=["svg", "pdf"], labels=["data.size=my size"])
    with caplog.at_level(logging.INFO):
        report(asked)
    assert not [record for record in caplog.records if record.name.startswith("fontTools")]
    names = {"loss.temperature", "data.size", "loss.temperature-data.size"}
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("svg", "pdf")
    }
    drawn = {name: (out / "figures" / f"{name}.svg").read_text(encoding="utf-8") for name in names}
    assert all(label in drawn["loss.temperature"] for label in (">τ<", "my size=1000", "avg. of 7 × 100"))
    assert all(label in drawn["loss.temperature-data.size"] for label in (">τ<", ">my size<"))
    assert (out / "figures" / "data.size.pdf").read_bytes().startswith(b"%PDF")
    report(asked)  # again, over its own
    with pytest.raises(MirrorError, match=r"figures=\[gif\]"):
        ReportConfig(figures=["gif"])
    with pytest.raises(MirrorError, match=r"labels=\[size\]"):
        ReportConfig(labels=["size"])


def test_sets_given_as_paths(tmp_path: Path) -> None:
    """They are called by their file's name, where that tells them apart."""
    write_run(tmp_path, [], sets=["a/mine.tsv", "a/test.tsv", "b/test.tsv", "stsb-dev"])
    (comparison,) = compare(collect([tmp_path]).runs)
    assert [comparison.name(name) for name in comparison.scores] == ["mine", "a/test.tsv", "b/test.tsv", "stsb-dev"]
    head = markdown([comparison]).splitlines()[2]
    assert "| mine | a/test.tsv | b/test.tsv | stsb-dev | gain on mine |" in head


@pytest.mark.parametrize(
    ("values", "expected"), [({1: 50.0}, "50.00"), ({1: 49.0, 2: 51.0}, "50.00 ± 1.41"), ({1: -3.456}, "-3.46")]
)
def test_figure(values: dict[int, float], expected: str) -> None:
    from mirror.report.files import figure

    assert figure(Cell(values)) == expected


def test_report_needs_no_network_and_no_other_file(sweep: Path, tmp_path: Path) -> None:
    page = report(ReportConfig([str(sweep)], output=str(tmp_path / "out"))).read_text(encoding="utf-8")
    own = page[: page.index("<script>")] + page[page.index('<script type="module">') :]
    assert "http://" not in own
    assert "https://" not in own
    assert "src=" not in own
    assert "<nan>" not in page
    assert "<b>training</b>" not in page
    names = {"report.html", "runs.csv", "table.csv", "table.md", "table.tex"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_command_names_the_folder_of_ones_own_parts(tmp_path: Path) -> None:
    command = ["scripts/train.py", "--config-dir", "my parts", "seed=3"]
    write_run(tmp_path, ["seed=3"], command=command)
    (run,) = collect([tmp_path]).runs
    assert run.command == "python scripts/train.py --config-dir 'my parts' seed=3"


def test_runs_of_other_code_are_named(tmp_path: Path) -> None:
    for seed, digest in ((1, "a"), (2, "b")):
        code = {"commit": "1a2b", "changed": True, "parts": {"mine": digest, "same": "c"}}
        write_run(tmp_path, [f"seed={seed}"], sets=[], code=code)
    found = collect([tmp_path])
    assert [problem.startswith("The code of mine was not the same") for problem in found.problems] == [True]
    assert "commit 1a2b and changes" in report(ReportConfig([str(tmp_path)])).read_text(encoding="utf-8")


def test_one_run_without_scores(tmp_path: Path) -> None:
    write_run(tmp_path, [], sets=[], scores={}, cosines={}, geometry={})
    page = report(ReportConfig([str(tmp_path)])).read_text(encoding="utf-8")
    assert "1 run: 1 finished." in page
    assert "not measured" in page


def test_columns_with_gaps_sort_as_numbers(tmp_path: Path) -> None:
    write_run(tmp_path, ["loss.temperature=0.1"], loss={}, seconds={})
    write_run(tmp_path, ["loss.temperature=0.2"])
    page = report(ReportConfig([str(tmp_path)])).read_text(encoding="utf-8")
    table = page[page.index('<table class="compared"') : page.index("<tfoot>")]
    orders = re.findall(r'<td[^>]*data-order="([^"]*)"', table)
    assert len(orders) == table.count("<td") == 2 * 13
    assert all(math.isfinite(float(order)) for order in orders)


def test_watch(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page reloads while it is watched, has what has come meanwhile, and stands still in the end."""
    folder = tmp_path / "live"
    shutil.copytree(sweep, folder)
    seen: list[str] = []

    def wait(seconds: float) -> None:
        assert seconds == 3
        seen.append((folder / "report" / "report.html").read_text(encoding="utf-8"))
        if len(seen) == 2:
            raise KeyboardInterrupt
        write_run(folder, ["loss.temperature=0.9"])

    monkeypatch.setattr("mirror.report.time.sleep", wait)
    last = report(ReportConfig([str(folder)], watch=True, every=3)).read_text(encoding="utf-8")
    refresh = '<meta http-equiv="refresh" content="3">'
    assert [refresh in page for page in (*seen, last)] == [True, True, False]
    assert ["20 runs" in seen[0], "21 runs" in seen[1]] == [True, True]


def test_watch_waits_for_runs_and_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def wait(seconds: float) -> None:
        seen.append((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
        if len(seen) == 3:
            raise KeyboardInterrupt
        write_run(tmp_path, [f"loss.temperature={len(seen) / 10}"])

    monkeypatch.setattr("mirror.report.time.sleep", wait)
    report(ReportConfig([str(tmp_path)], watch=True, baseline="loss.temperature=0.2"))
    assert ["0 runs" in seen[0], "1 run:" in seen[1], "2 runs" in seen[2]] == [True] * 3
    assert ["(baseline)" in page for page in seen] == [False, False, True]


def test_questions_one_at_a_time(tmp_path: Path) -> None:
    """Along an axis stand the runs that differ in it alone, and those that alone have their value."""
    pytest.importorskip("plotly")
    from mirror.report.figures import figures

    for override in ("seed=1", "loss.temperature=0.02", "loss.temperature=0.2", "data.size=1000", "data.size=20000"):
        write_run(tmp_path, [override])
    write_sweep(tmp_path, {"data.size": [50000], "loss.temperature": [0.1], "seed": [1, 2]})
    (comparison,) = compare(collect([tmp_path]).runs)
    along = {figure.title: figure.plot.data for figure in figures(comparison)}
    temperatures, sizes = along[f"{AVERAGE} against loss.temperature"], along[f"{AVERAGE} against data.size"]
    assert sorted(tuple(line.x) for line in temperatures) == [(0.02, 0.04, 0.2), (0.1,)]
    assert sorted(tuple(line.x) for line in sizes) == [(1000, 10000, 20000), (50000,)]
    (alone,) = (line for line in sizes if len(line.x) == 1)  # no band, so a bar
    assert list(alone.error_y.array) == pytest.approx([comparison.rows[-1].cells[AVERAGE].sd])


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as they lie in W&B too, and one that does not."""
    folder = tmp_path_factory.mktemp("sweeps") / "tracked"
    logger = ["logger.trackers=[csv,wandb]", "logger.group=temperature", "logger.project=mine"]
    for temperature in (0.02, 0.04):
        write_run(folder, [f"loss.temperature={temperature}", *logger], sets=["stsb-test"])
    write_run(folder, ["loss.temperature=0.1"], sets=["stsb-test"])
    return folder


def test_workspace(tracked: Path) -> None:
    """What would go to W&B: the sweep's runs, grouped by axis; each score by axis, mean and sd; the losses."""
    pytest.importorskip("wandb_workspaces")
    runs = collect([tracked]).runs
    view = workspace(runs, compare(runs), "team", "ours")._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))["section"]
    (shown,) = spec["runSets"]
    (rule,) = shown["filters"]["filters"]
    assert (view.entity, view.project, view.display_name) == ("team", "mine", "ours")
    assert (rule["key"], rule["op"], rule["value"]) == ({"section": "run", "name": "group"}, "IN", ["temperature"])
    assert shown["grouping"] == [{"section": "config", "name": "loss.temperature.value"}]
    panels = [panel["config"] for part in spec["panelBankConfig"]["sections"] for panel in part["panels"]]
    bars, losses, scatter, differences = panels
    assert bars["metrics"] == ["summary_metrics.tuned/stsb-test/all"]
    assert bars["groupBy"] == losses["groupBy"] == "loss.temperature.value"
    assert (bars["groupAgg"], bars["groupArea"]) == ("mean", "stddev")
    assert losses["metrics"] == ["loss"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:geometry/uniformity", "summary:geometry/alignment")
    assert differences == {"diffOnly": "split"}


def test_workspace_is_saved_last(
    command: Command,
    tracked: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the page; nothing is asked of the network before a key is there."""
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    saved: list[str] = []
    monkeypatch.setattr(workspaces.Workspace, "save", lambda made: saved.append(made.project))
    monkeypatch.setattr(workspaces.Workspace, "url", "https://w/view")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "nowhere")
    assert_refused(command("report", tracked, "output=out", "wandb=team"), "wandb=team", "WANDB_API_KEY")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    result = command("report", tracked, "output=out", "wandb=team")
    assert (result.code, saved) == (0, ["mine"])
    assert "https://w/view" in result.err


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"logger.trackers": "[csv]"}, "no sweep with logger=wandb"),
        ({"logger.group": None}, "no sweep with logger=wandb"),
        ({"logger.project": "another"}, "the projects another, mine"),
    ],
)
def test_workspace_refuses(tracked: Path, changed: dict[str, Any], reason: str) -> None:
    runs = collect([tracked]).runs
    in_wandb = [run for run in runs if "wandb" in run.settings["logger.trackers"]]
    for run in in_wandb[: 1 if "logger.project" in changed else None]:
        run.settings |= changed
    with pytest.raises(MirrorError, match=f"wandb=team .*{reason}"):
        workspace(runs, compare(runs), "team", "ours")


def test_workspace_needs_its_package(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    runs = collect([tracked]).runs
    with pytest.raises(MirrorError, match=r"pip install 'mirror-encoders\[workspace\]'"):
        workspace(runs, compare(runs), "team", "ours")


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["grid", "wandb=team", "--watch"], ["wandb=team", "--watch"]),
        (["nowhere"], ["nowhere is no folder"]),
        (["empty"], ["empty holds no training run"]),
        (["grid", "baseline=loss.temperature=7"], ["baseline=loss.temperature=7 is no row", "loss.temperature=0.02"]),
        (["grid", "output=grid/note"], ["output=grid/note cannot be written"]),
        (["grid", "output=grid/mine"], ["output=grid/mine holds table.csv, which no report made"]),
        (["grid", "every=0"], ["every=0"]),
        (["grid", "nonsense=1"], ["nonsense"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused(command: Command, sweep: Path, arguments: list[str], reasons: list[str]) -> None:
    Path("empty").mkdir()
    shutil.copytree(sweep, "grid")
    Path("grid/note").write_text("no folder", encoding="utf-8")
    Path("grid/mine").mkdir()
    Path("grid/mine/table.csv").write_text("mine", encoding="utf-8")
    assert_refused(command("report", *arguments), *reasons)
    assert [path.read_text(encoding="utf-8") for path in Path("grid/mine").iterdir()] == ["mine"]


def test_command(command: Command, sweep: Path) -> None:
    shutil.copytree(sweep, "my grid, the first")
    result = command("report", "my grid, the first", "baseline=loss.temperature=0.04,data.size=1000", "title=Mine")
    assert result.code == 0, result.err
    page = Path("my grid, the first/report/report.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in page
    assert "(baseline)" in page
    assert "20 runs: 18 finished, 1 failed, 1 running." in result.err


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (1280, "dark")])
def test_page_in_a_browser(sweep: Path, tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    """Opens from the disk without an error, sorts, filters, opens a run; no wider than the window."""
    path = report(ReportConfig([str(sweep)], output=str(tmp_path / "out")))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn", timeout=120_000)
    assert page.locator(".plot .main-svg").count() >= 7

    heads = page.locator("table.compared thead th").all_inner_texts()
    assert ("sts12" in heads[:2]) is (width < 640)  # on a phone the scores are seen first

    def column(name: str) -> list[str]:
        cells = page.locator(f"table.compared tbody tr td:nth-child({heads.index(name) + 1})")
        return [str(text) for text in cells.all_inner_texts()]

    assert column("data.size") == ["1000", "20000"] * 3
    heading = page.locator("table.compared thead th", has_text="sts13")
    heading.click()
    page.wait_for_selector("th[aria-sort=ascending]")  # it sorts a moment after the click
    first = [float(text.split()[0]) for text in column("sts13")]
    heading.click()
    page.wait_for_selector("th[aria-sort=descending]")
    second = [float(text.split()[0]) for text in column("sts13")]
    assert first == sorted(first)
    assert second == first[::-1]
    page.locator("section:has(table.compared) input[type=search]").fill("data.size=20000")
    assert column("data.size") == ["20000"] * 3

    shown = page.locator("#runs tbody tr")
    runs = page.locator("section:has(#runs) input[type=search]")
    runs.fill("data.size=20000")
    page.wait_for_function("document.querySelectorAll('#runs tbody tr').length == 9")
    runs.fill("")
    page.locator("#runs thead th", has_text="sts13").click()
    page.wait_for_selector("#runs th[aria-sort=ascending]")
    place = page.locator("#runs thead th").all_inner_texts().index("sts13") + 1
    there = [text for text in shown.locator(f"td:nth-child({place})").all_inner_texts() if text != "–"]
    assert len(there) == 18
    assert there == sorted(there, key=float)
    runs.fill("failed")
    page.locator("#runs .open").click()
    detail = page.locator(".detail")
    assert "the loss is <nan>" in detail.inner_text()
    assert "python scripts/train.py loss.temperature=0.5" in detail.locator(".command").inner_text()
    page.locator("#runs .open").click()
    assert detail.count() == 0

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}").strip("rgb()").split(",")
        for name in ("color", "backgroundColor")
    )
    assert (sum(map(int, ink)) > sum(map(int, paper))) is (scheme == "dark")
    assert page.locator(".modebar-btn[data-title='Save as SVG']").count() >= 7
    with page.expect_download() as saved:
        page.locator(".modebar-btn[data-title='Save as SVG']").first.dispatch_event("click")
    assert saved.value.suggested_filename.endswith(".svg")
    assert said == []


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": {"tuned": {"sts12": {}}}},
        {"scores": {"tuned": {"sts12": {"pairs": 3}}}},
        {"seeds": {"1": {"scores": []}}},
        {"status": ["finished"]},
        {"loss": {"last": "low"}},
        {"loss": 3},
        {"seconds": {"total": [1]}},
        {"cosines": [1]},
        {"geometry": {"tuned": {"alignment": "near"}}},
        None,
    ],
)
def test_a_damaged_run_does_not_lose_the_report(sweep: Path, tmp_path: Path, damage: dict[str, Any] | None) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(sweep, folder)
    path = sorted(folder.iterdir())[0] / "metrics.json"
    odd = json.loads(path.read_text(encoding="utf-8"))
    text = "[" * 100_000 if damage is None else json.dumps({**odd, **damage})
    path.write_text(text, encoding="utf-8")
    found = collect([folder])
    assert len(found.runs) == len(collect([sweep]).runs) - 1
    assert [str(path) in problem and problem.endswith("left out.") for problem in found.problems] == [True]


def test_a_log_that_is_a_folder(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(sweep, folder)
    one = sorted(folder.iterdir())[0]
    (one / "train.log").unlink(missing_ok=True)
    (one / "train.log").mkdir()
    assert "" in [run.log() for run in collect([folder]).runs if run.folder == one]
