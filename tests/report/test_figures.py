"""The pictures of a comparison, by what they draw on which axis."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from mirror.evaluation.cosines import EDGES
from mirror.evaluation.sets.sts import AVERAGE
from mirror.report.runs import collect
from mirror.report.table import Comparison, compare
from tests.sweep_runs import write_sweep

pytest.importorskip("plotly")
SCORE = AVERAGE


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two temperatures by two sizes, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    write_sweep(folder, {"loss.temperature": [0.02, 0.2], "data.size": [1000, 20000], "seed": [1, 2]})
    (found,) = compare(collect([folder]).runs)
    return found


@pytest.fixture(scope="module")
def plots(comparison: Comparison) -> dict[str, Any]:
    from mirror.report.figures import figures

    return {figure.title: figure.plot for figure in figures(comparison)}


def titles(plot: Any) -> tuple[str, str]:
    return plot.layout.xaxis.title.text, plot.layout.yaxis.title.text


def test_heat_map(comparison: Comparison, plots: dict[str, Any]) -> None:
    plot = plots[f"{SCORE} by loss.temperature and data.size"]
    (drawn,) = plot.data
    means = {tuple(map(str, row.settings.values())): row.cells[SCORE].mean for row in comparison.rows}
    found = {(x, y): drawn.z[j][i] for i, x in enumerate(drawn.x) for j, y in enumerate(drawn.y)}
    assert found == {(t, size): pytest.approx(mean) for (t, size), mean in means.items()}
    assert titles(plot) == ("loss.temperature", "data.size")


def test_heat_map_compares_under_equal_settings(tmp_path: Path) -> None:
    """On an unbalanced grid, no cell has another size than its neighbours."""
    from mirror.report.figures import figures

    axes: dict[str, list[Any]] = {"loss.temperature": [0.02, 0.2], "optim.lr": [1e-5, 2e-5], "data.size": [1000]}
    write_sweep(tmp_path, axes)
    write_sweep(tmp_path, {"loss.temperature": [0.02], "optim.lr": [1e-5], "data.size": [2000]})
    (found,) = compare(collect([tmp_path]).runs)
    (figure,) = (one for one in figures(found) if one.title.endswith("loss.temperature and optim.lr"))
    small = [row.cells[SCORE].mean for row in found.rows if row.settings["data.size"] == 1000]
    assert sorted(value for line in figure.plot.data[0].z for value in line) == pytest.approx(sorted(small))
    assert "data.size=1000" in figure.note


def test_alignment_is_up_and_uniformity_across(comparison: Comparison, plots: dict[str, Any]) -> None:
    plot = plots["Alignment against uniformity"]
    (points,) = plot.data
    assert list(points.x) == [row.uniformity for row in comparison.rows]
    assert list(points.y) == [row.alignment for row in comparison.rows]
    assert list(points.marker.color) == [row.cells[SCORE].mean for row in comparison.rows]
    across, up = titles(plot)
    assert across.startswith("uniformity")
    assert up.startswith("alignment")


def test_score_is_up_and_time_across(comparison: Comparison, plots: dict[str, Any]) -> None:
    plot = plots[f"{SCORE} against time"]
    (points,) = plot.data
    assert list(points.x) == [row.seconds for row in comparison.rows]
    assert list(points.y) == [row.cells[SCORE].mean for row in comparison.rows]
    assert titles(plot) == ("training, seconds", f"{SCORE}, × 100")


def test_loss_is_the_mean_over_the_seeds(comparison: Comparison, plots: dict[str, Any]) -> None:
    lines = {line.name: line for line in plots["Loss"].data}
    assert lines.keys() == {row.brief for row in comparison.rows}
    for row in comparison.rows:
        curves = [dict(run.curve()) for run in row.runs]
        steps = list(lines[row.brief].x)
        assert len(steps) >= 5
        assert list(lines[row.brief].y) == [
            pytest.approx(statistics.fmean(curve[step] for curve in curves)) for step in steps
        ]
    assert titles(plots["Loss"]) == ("step", "loss")


def test_bars_stand_beside_each_other(tmp_path: Path) -> None:
    """Of equal values on an axis of names; the score's axis shows the differences."""
    from mirror.report.figures import figures

    write_sweep(tmp_path, {"aug": ["mirror", "none"], "loss.temperature": [0.02, 0.2], "seed": [1, 2]})
    (found,) = compare(collect([tmp_path]).runs)
    plot = {figure.title: figure.plot for figure in figures(found)}[f"{SCORE} against aug"]
    assert plot.layout.scattermode == "group"
    assert len({line.offsetgroup for line in plot.data}) == 2
    assert [line.name for line in plot.data] == ["loss.temperature=0.02", "loss.temperature=0.2"]
    assert plot.layout.yaxis.range[0] > 10


def test_cosines_of_the_best_row(comparison: Comparison, plots: dict[str, Any]) -> None:
    (title,) = (title for title in plots if title.startswith("Cosine similarities on "))
    name = title.removeprefix("Cosine similarities on ")
    best = max(comparison.rows, key=lambda row: row.cells[SCORE].mean)
    found = best.runs[0].cosines
    lines = {line.name: line for line in plots[title].data}
    assert lines.keys() == {
        f"{column}: {said}" for column in ("raw cls", "tuned") for said in ("belong together", "random")
    }
    for column, dash in (("raw cls", "dot"), ("tuned", "solid")):
        for kind, said in (("true", "belong together"), ("random", "random")):
            line, counts = lines[f"{column}: {said}"], found[column][name][kind]
            assert line.line.dash == dash
            assert list(line.x) == pytest.approx(((EDGES[:-1] + EDGES[1:]) / 2).tolist(), abs=1e-3)
            assert list(line.y) == pytest.approx([100 * count / sum(counts) for count in counts])
    assert titles(plots[title]) == ("cosine similarity", "pairs, %")
