"""The pictures of a search: what of a study stands in the report."""

from pathlib import Path
from typing import Any

import pytest

from mirror.config import ReportConfig
from mirror.report import report
from tests.sweep_runs import write_sweep

optuna = pytest.importorskip("optuna")
pytest.importorskip("plotly")


def searched(folder: Path) -> None:
    """Six trials whose score follows from the rate alone."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(exist_ok=True)
    study = optuna.create_study(storage=f"sqlite:///{folder}/search.db", study_name="stsb-dev", direction="maximize")

    def score(trial: Any) -> float:
        rate = float(trial.suggest_float("optim.lr", 1e-5, 1e-2, log=True))
        trial.suggest_categorical("model.pooling", ["cls", "mean"])
        return 100 * rate

    study.sampler = optuna.samplers.RandomSampler(seed=1)
    study.optimize(score, n_trials=40)


def test_study_figures(tmp_path: Path) -> None:
    from mirror.report.study import study_figures

    searched(tmp_path)
    history, importances, trials = study_figures([tmp_path, tmp_path / "elsewhere"])
    titles = [figure.title.removeprefix("Search by stsb-dev: ") for figure in (history, importances, trials)]
    assert titles == ["history", "importances", "every trial"]
    assert len(history.plot.data[0].x) == 40
    bars = dict(zip(importances.plot.data[0].y, importances.plot.data[0].x, strict=True))
    assert bars["optim.lr"] > bars["model.pooling"]
    score, rate, pooling = trials.plot.data[0].dimensions
    assert (score.label, rate.label, pooling.label) == ("stsb-dev", "optim.lr", "model.pooling")
    assert [100 * 10**value for value in rate["values"]] == pytest.approx(score["values"])  # logarithmic, as drawn
    assert float(rate.ticktext[0]) == pytest.approx(min(score["values"]) / 100, rel=0.05)
    assert set(pooling["values"]) == set(pooling.tickvals) == {0, 1}
    assert pooling.ticktext == ("cls", "mean")


def test_stands_in_the_report(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"optim.lr": [1e-4, 1e-3]}, sets=["stsb-dev"])
    assert "<h2>Search</h2>" not in report(ReportConfig([str(tmp_path)])).read_text(encoding="utf-8")
    searched(tmp_path)
    page = report(ReportConfig([str(tmp_path)])).read_text(encoding="utf-8")
    assert "<h2>Search</h2>" in page
    assert "Search by stsb-dev: importances" in page


def test_damaged_study(tmp_path: Path) -> None:
    from mirror.report.study import study_figures

    (tmp_path / "search.db").write_text("no database")
    assert study_figures([tmp_path]) == []
