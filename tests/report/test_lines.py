"""Pictures along an axis: values by size, no lines of one point."""

import re
from pathlib import Path

import pytest

from mirror.report.lines import lines_along, values_along
from mirror.report.papers import draw
from mirror.report.table import Cell, Comparison, Row

SETTINGS = [  # two sweeps that meet in the defaults, in the order of a table
    (0.05, 0.07), (0.1, 0.02), (0.1, 0.07), (0.1, 0.2), (0.2, 0.07),
]  # fmt: skip
AXES = ["aug.dropout", "loss.temperature"]
ROWS = [
    Row(dict(zip(AXES, pair, strict=True)), [], {"stsb-dev": Cell({1: 70.0 + number, 2: 71.0 + number})})
    for number, pair in enumerate(SETTINGS)
]


@pytest.mark.parametrize(
    ("axis", "other", "values"),
    [("loss.temperature", "aug.dropout", [0.02, 0.07, 0.2]), ("aug.dropout", "loss.temperature", [0.05, 0.1, 0.2])],
)
def test_one_line_through_the_defaults(axis: str, other: str, values: list[float]) -> None:
    assert values_along(ROWS, axis) == values
    lines = lines_along(ROWS, axis, [other])
    assert [[row.settings[axis] for row in members] for members in lines.values()] == [values]


def test_a_value_that_no_line_has_stays() -> None:
    """A search differs in everything: each of its trials is a point."""
    apart = [ROWS[0], ROWS[1]]
    assert len(lines_along(apart, "loss.temperature", ["aug.dropout"])) == 2


def test_a_paper_has_the_values_by_size(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    comparison = Comparison("", AXES, ROWS, ["stsb-dev"], [], None)
    draw([comparison], ["svg"], tmp_path, {})
    drawn = (tmp_path / "loss.temperature.svg").read_text(encoding="utf-8")
    printed = re.findall(r"<text [^>]*>([^<]+)</text>", drawn)
    assert printed[:3] == ["0.02", "0.07", "0.2"]
    assert not any("0.05" in text for text in printed)
    over = re.findall(r"<text [^>]*>([^<]+)</text>", (tmp_path / "aug.dropout-loss.temperature.svg").read_text("utf-8"))
    ticks = [text for text in over if text in ("0.05", "0.1", "0.02", "0.07", "0.2")]
    assert ticks == ["0.05", "0.1", "0.2", "0.02", "0.07", "0.2"]
