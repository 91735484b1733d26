"""The course of the geometry while training."""

from pathlib import Path
from typing import Any

import pytest

from mirror.evaluation.sets import Score, pairs
from tests.helpers import curve, equal, go, metrics, weights


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_course_of_a_run(
    precision: str, tiny_bert: Path, eval_dir: Path, tmp_path: Path, saved_figures: list[Any]
) -> None:
    """It begins with the untouched model and ends with the encoder; to look on changes nothing. However a run
    computes, the looks are those of the evaluation, in float32."""
    settings = ["seed=1", f"trainer.precision={precision}"]
    overrides = ["eval=stsb", f"eval.data_dir='{eval_dir}'", "eval.geometry_every=2", *settings]
    watched = go(tiny_bert, tmp_path / "watched", *overrides)
    course = metrics(tmp_path / "watched")["geometry_curve"]
    assert course["step"] == [0, 2, 3]
    found = metrics(tmp_path / "watched")["geometry"]
    assert found.keys() == {"raw cls", "raw mean", "tuned"}
    for name, values in found["raw cls"].items():  # the sample is whole here, so that both are the same pairs
        assert course[name][0] == pytest.approx(values, rel=1e-3)
        assert course[name][-1] == pytest.approx(found["tuned"][name], rel=1e-3)
        assert curve(tmp_path / "watched", f"geometry/{name}") == pytest.approx(course[name], rel=1e-3)
    assert (tmp_path / "watched" / "geometry.png").exists()
    panels = {axis.get_title(): axis.lines[0] for axis in saved_figures[-1].axes if axis.lines}
    assert {name: (line.get_xdata().tolist(), line.get_ydata().tolist()) for name, line in panels.items()} == {
        name.replace("_", " "): (course["step"], values) for name, values in course.items() if name != "step"
    }
    alone = go(tiny_bert, tmp_path / "alone", *settings)
    assert equal(weights(alone), weights(watched))


def test_no_look_where_none_is_wished(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    go(tiny_bert, tmp_path / "run", "eval=stsb", f"eval.data_dir='{eval_dir}'", "eval.geometry_every=0")
    assert "geometry_curve" not in metrics(tmp_path / "run")


def test_collapse_is_told_while_it_happens(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and not of a run that does no such harm."""
    measured = ["eval=stsb", f"eval.data_dir='{eval_dir}'", "eval.geometry_every=1"]
    go(tiny_bert, tmp_path / "sound", *measured)
    assert "does harm" not in caplog.text
    go(tiny_bert, tmp_path / "harm", *measured, "optim.lr=0.3", "trainer.max_epochs=3")
    assert caplog.text.count("Tuning does harm: at step") == 1
    course = metrics(tmp_path / "harm")["geometry_curve"]
    bound = (1 + course["anisotropy"][0]) / 2
    first = next(step for step, value in zip(course["step"], course["anisotropy"], strict=True) if value > bound)
    assert f"at step {first} two different texts have a mean cosine of" in caplog.text


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([50, 60, 57, 57.5], "has fallen from 60.00 to 57.50 by step 4. Stop (Ctrl-C)"),
        ([50, 60, 57, 59], ""),  # up again
        ([50, 60, 58.5, 58.5], ""),  # within the noise
    ],
)
def test_a_score_that_falls_is_told_while_it_happens(
    scores: list[float], told: str, tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Once, with the set's name and the way out."""
    measured = iter([*scores, *scores[-1:] * 8])
    monkeypatch.setattr(pairs.PairSet, "score", lambda self, encode: Score("all", 20, {"all": next(measured)}))
    followed = ["eval.curve=stsb-dev", "eval.every=1", "trainer.max_epochs=2", f"eval.data_dir='{eval_dir}'"]
    go(tiny_bert, tmp_path / "run", *followed)
    assert caplog.text.count("Tuning does harm: stsb-dev") == bool(told)
    assert told in caplog.text
    assert ("or keep the best weights with select=best" in caplog.text) is bool(told)
