"""The pictures at the end of a run, by what stands in their panels."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirror.evaluation.cosines import EDGES
from mirror.report.pictures import draw_cosines, draw_geometry

BINS = len(EDGES) - 1
COURSE: dict[str, list[float]] = {
    "step": [0, 2, 3],
    "alignment": [0.1, 0.3, 0.2],
    "uniformity": [-1.0, -2.0, -3.0],
    "effective_rank": [9.0, 8.0, 7.0],
}


def counts(stsb: int, pydocs: int) -> dict[str, dict[str, list[int]]]:
    """Two sets; the true pairs all lie in one bin, the random ones are three to one in bins 60 and 61."""
    found = {}
    for name, at in (("stsb-test", stsb), ("pydocs", pydocs)):
        true, random = [0] * BINS, [0] * BINS
        true[at], random[60], random[61] = 10, 15, 5
        found[name] = {"true": true, "random": random}
    return found


def shares(axis: Any) -> Mapping[str, dict[int, float]]:
    """The filled bins of each histogram of a panel, by its name in the legend."""
    bins = {drawn.get_label(): drawn.get_data().values for drawn in axis.patches}
    return {name: {int(at): float(values[at]) for at in np.flatnonzero(values)} for name, values in bins.items()}


def test_cosines_before_are_left_and_after_right(saved_figures: list[Any], tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    draw_cosines(("raw mean", counts(90, 80)), ("tuned", counts(95, 85)), tmp_path / "cosines.png")
    (figure,) = saved_figures
    panels = {axis.get_title(): shares(axis) for axis in figure.axes}
    true, random = legend = ("pairs that belong together", "random pairs")
    spread = {60: 0.75, 61: 0.25}
    assert list(panels.items()) == [
        ("stsb-test: raw mean", {true: {90: 1.0}, random: spread}),
        ("stsb-test: tuned", {true: {95: 1.0}, random: spread}),
        ("pydocs: raw mean", {true: {80: 1.0}, random: spread}),
        ("pydocs: tuned", {true: {85: 1.0}, random: spread}),
    ]
    assert tuple(text.get_text() for text in figure.axes[0].get_legend().get_texts()) == legend
    low, high = figure.axes[0].get_xlim()
    assert low <= EDGES[60]
    assert high >= 1
    assert image.imread(tmp_path / "cosines.png").shape[1] > 600


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.INFO):
        draw_cosines(("raw", counts(90, 80)), ("tuned", counts(95, 85)), tmp_path / "cosines.png")
    assert "pip install 'mirror-encoders[plots]'" in caplog.text
    assert not (tmp_path / "cosines.png").exists()


def test_each_figure_of_the_geometry_has_its_panel(saved_figures: list[Any], tmp_path: Path) -> None:
    draw_geometry(COURSE, tmp_path / "geometry.png")
    (figure,) = saved_figures
    panels = {axis.get_title(): axis.lines[0].get_xydata().tolist() for axis in figure.axes if axis.lines}
    assert panels == {
        name.replace("_", " "): [list(point) for point in zip(COURSE["step"], COURSE[name], strict=True)]
        for name in ("alignment", "uniformity", "effective_rank")
    }
    assert (tmp_path / "geometry.png").exists()
