"""The course of the geometry while training."""

from pathlib import Path
from typing import Any

import pytest

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
