"""Figures for a paper: the score along each axis, and over the first two, as PDF, SVG or PNG."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.errors import MirrorError
from mirror.report.labels import printed_as
from mirror.report.lines import lines_along, values_along
from mirror.report.table import Comparison, Row, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = 8
"""Most lines in a figure: where there are more, those with the best scores are drawn."""
WIDTH, HEIGHT = 4.2, 2.9
"""Inches, for a figure of one column."""
DODGE = 0.6
"""Share of the distance between two values over which the lines' points are spread: no error bar hides another."""


def draw(
    comparisons: Sequence[Comparison], formats: Sequence[str], folder: Path, labels: Mapping[str, str]
) -> list[Path]:
    """Write the figures of each comparison.

    Args:
        comparisons: the finished runs.
        formats: ``pdf``, ``svg``, ``png``.
        folder: for the files, created where it is missing.
        labels: what settings and sets are called, before ``mirror.report.labels``.

    Returns:
        The files.

    Raises:
        MirrorError: matplotlib is missing.
        OSError: the folder cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise MirrorError("figures= needs the package matplotlib: pip install 'mirror-encoders[plots]'.") from None
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    # Fonts that editors can change, and that conferences accept.
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells each table of a font
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 9}):
        for number, comparison in enumerate(comparisons, 1):
            for name, figure in _figures(comparison, labels):
                FigureCanvasAgg(figure)
                begin = f"{number}-" if len(comparisons) > 1 else ""
                for kind in dict.fromkeys(formats):
                    written.append(folder / f"{begin}{name}.{kind}")
                    figure.savefig(written[-1], dpi=300, bbox_inches="tight")
    return written


def _figures(comparison: Comparison, labels: Mapping[str, str]) -> "Iterator[tuple[str, Figure]]":
    score = comparison.headline
    rows = [row for row in comparison.rows if score in row.cells]
    axes = [axis for axis in comparison.axes if len({row.settings[axis] for row in rows}) > 1]
    if score is None:
        return
    called = {name: printed_as(name, labels) for name in axes} | {score: printed_as(comparison.name(score), labels)}
    for axis in axes:
        yield axis, _along(rows, score, axis, [other for other in axes if other != axis], called)
    if len(axes) > 1:
        yield f"{axes[0]}-{axes[1]}", _over(rows, score, axes, called)


def _along(rows: Sequence[Row], score: str, axis: str, others: Sequence[str], called: Mapping[str, str]) -> "Figure":
    """The score along one axis, a line for each combination of the others; the values stand at equal distances."""
    from matplotlib.figure import Figure

    lines = lines_along(rows, axis, others)
    best = sorted(lines, key=lambda key: -max(row.cells[score].mean for row in lines[key]))[:LINES]
    drawn = [key for key in lines if key in best]
    values = [shown(item) for item in values_along(rows, axis)]
    numeric = all(isinstance(row.settings[axis], int | float) for row in rows)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    place = figure.subplots()
    for number, key in enumerate(drawn):
        shift = DODGE * ((number + 0.5) / len(drawn) - 0.5)
        cells = [row.cells[score] for row in lines[key]]
        place.errorbar(
            [values.index(shown(row.settings[axis])) + shift for row in lines[key]],
            [cell.mean for cell in cells],
            yerr=[cell.sd or 0.0 for cell in cells],
            marker="osD^v<>p"[number],
            linestyle="-" if numeric else "none",
            linewidth=1, markersize=4, capsize=2,
            label=", ".join(f"{called[other]}={shown(item)}" for other, item in zip(others, key, strict=True)),
        )  # fmt: skip
    place.set_xticks(range(len(values)), values)
    place.set_xlim(-0.5, len(values) - 0.5)
    place.set_xlabel(called[axis])
    place.set_ylabel(f"{called[score]} × 100")
    place.spines[["top", "right"]].set_visible(False)
    if len(drawn) > 1:
        place.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _over(rows: Sequence[Row], score: str, axes: Sequence[str], called: Mapping[str, str]) -> "Figure":
    """The score over two axes, the others at the one setting that fills the most cells."""
    from matplotlib.figure import Figure

    slices: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        slices.setdefault(tuple(row.settings[other] for other in axes[2:]), []).append(row)
    fixed = max(slices, key=lambda key: len(slices[key]))
    across, down = ([shown(item) for item in values_along(slices[fixed], axis)] for axis in axes[:2])
    cells = {tuple(shown(row.settings[axis]) for axis in axes[:2]): row.cells[score].mean for row in slices[fixed]}
    figure = Figure(figsize=(WIDTH, HEIGHT))
    place = figure.subplots()
    image = place.imshow([[cells.get((a, b), float("nan")) for a in across] for b in down], aspect="auto")
    middle = (min(cells.values()) + max(cells.values())) / 2
    for (a, b), mean in cells.items():
        color = "black" if mean > middle else "white"
        place.text(across.index(a), down.index(b), f"{mean:.1f}", ha="center", va="center", color=color, fontsize=8)
    place.set_xticks(range(len(across)), across)
    place.set_yticks(range(len(down)), down)
    place.set_xlabel(called[axes[0]])
    place.set_ylabel(called[axes[1]])
    figure.colorbar(image, label=f"{called[score]} × 100")
    if held := ", ".join(f"{called[axis]}={shown(item)}" for axis, item in zip(axes[2:], fixed, strict=True)):
        place.set_title(held, fontsize=8)
    return figure
