"""The pictures at the end of a run."""

import logging
import sys
from pathlib import Path

import pytest

from mirror.evaluation.cosines import EDGES
from mirror.report.pictures import draw_cosines, draw_geometry

BINS = len(EDGES) - 1


def counts(at: int) -> dict[str, dict[str, list[int]]]:
    true, random = [0] * BINS, [0] * BINS
    true[at], random[60] = 10, 20
    return {"stsb-test": {"true": true, "random": random}, "pydocs": {"true": true, "random": random}}


def test_picture_is_drawn(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    draw_cosines(("raw mean", counts(90)), ("tuned", counts(95)), tmp_path / "cosines.png")
    pixels = image.imread(tmp_path / "cosines.png")
    assert pixels.shape[0] > 600
    assert pixels[..., :3].std() > 0.05  # not an empty page


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.INFO):
        draw_cosines(("raw", counts(90)), ("tuned", counts(95)), tmp_path / "cosines.png")
    assert "pip install 'mirror-encoders[plots]'" in caplog.text
    assert not (tmp_path / "cosines.png").exists()


def test_geometry_is_drawn(tmp_path: Path) -> None:
    """And another course is another picture."""
    image = pytest.importorskip("matplotlib.image")
    for name, last in (("a", 0.2), ("b", 0.05)):
        curve: dict[str, list[float]] = {"step": [0, 1], "alignment": [0.1, last], "uniformity": [-1.0, -2.0]}
        draw_geometry(curve, tmp_path / f"{name}.png")
    a, b = (image.imread(tmp_path / f"{name}.png") for name in "ab")
    assert (a != b).any()
