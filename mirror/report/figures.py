"""The plots of a comparison; which ones depends on its axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative, sample_colorscale

from mirror.report.labels import short_names
from mirror.report.lines import lines_along, values_along
from mirror.report.table import Comparison, Row, shown
from mirror.runs.record import TUNED

LINES = 10
"""Most lines in a plot: where there are more, those with the best scores are drawn."""
COUNTED = ("data.size", "batch.size", "loss.temperature", "optim.lr", "model.learning_rate", "model.temperature")
"""Settings that are usually varied by factors: their axis is logarithmic."""
TICKS = 10
"""Most values that are marked on an axis; where there are more, as in a search, plotly chooses."""
POINTS = 200
"""Most points drawn of a loss curve."""
COLORS = qualitative.D3
"""Ten colours that are visible on white and on black."""


@dataclass
class Figure:
    """A picture with its heading."""

    title: str
    note: str
    plot: go.Figure


def figures(comparison: Comparison) -> Iterator[Figure]:
    """Every picture that the runs allow."""
    score = comparison.headline
    rows = [row for row in comparison.rows if score in row.cells]
    if score is not None and rows:
        axes = [axis for axis in comparison.axes if len({row.settings[axis] for row in rows}) > 1]
        for axis in axes:
            yield _against_axis(rows, score, axis, [other for other in axes if other != axis])
        if len(axes) > 1 and len(rows) > max(len({row.settings[axis] for row in rows}) for axis in axes[:2]):
            yield _heat_map(rows, score, axes)
        yield from _alignment(rows, score)
        if any(row.seconds for row in rows) and len(rows) > 1:
            yield _against_time(rows, score)
    yield from _losses(rows or comparison.rows, score)
    yield from _cosines(rows, score)


def _said(score: str) -> str:
    return short_names([score])[score]


def _numeric(items: Sequence[Any]) -> bool:
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)


def _best(rows: Sequence[Row], score: str | None) -> list[Row]:
    """The rows that a plot has room for, in their order."""
    if len(rows) <= LINES:
        return list(rows)
    ranked = sorted(rows, key=lambda row: row.cells[score].mean if score in row.cells else 0.0, reverse=True)
    return [row for row in rows if any(row is chosen for chosen in ranked[:LINES])]


def _against_axis(rows: Sequence[Row], score: str, axis: str, others: list[str]) -> Figure:
    """The score along one axis, a line for each combination of the others."""
    lines = lines_along(rows, axis, others)
    apart = len(lines) > 1 and all(len(members) == 1 for members in lines.values())
    if apart:
        lines = {(): list(rows)}  # of a search, whose trials differ in everything: points alone
    total = len(lines)
    top = sorted(lines, key=lambda key: -max(row.cells[score].mean for row in lines[key]))[:LINES]
    plot = go.Figure()
    seen = {row.settings[axis] for row in rows}
    numeric = _numeric([*seen])
    for number, key in enumerate(key for key in lines if key in top):
        color = COLORS[number % len(COLORS)]
        members = lines[key]
        x = [row.settings[axis] if numeric else shown(row.settings[axis]) for row in members]
        cells = [row.cells[score] for row in members]
        means, sds = [cell.mean for cell in cells], [cell.sd or 0.0 for cell in cells]
        name = ", ".join(f"{other}={shown(item)}" for other, item in zip(others, key, strict=False)) or _said(score)
        text = [row.label for row in members] if apart else None
        hover = ("%{text}: %{y:.2f}" if apart else "%{x}: %{y:.2f}") + "<extra>" + name + "</extra>"
        line = numeric and len(x) > 1 and bool(key or not others)
        if line and any(sds):  # the band of the seeds
            band = [mean + sd for mean, sd in zip(means, sds, strict=True)]
            band += [mean - sd for mean, sd in zip(means, sds, strict=True)][::-1]
            fill = {"fill": "toself", "fillcolor": color, "opacity": 0.18, "line": {"width": 0}}
            plot.add_scatter(
                x=x + x[::-1], y=band, mode="lines", showlegend=False, hoverinfo="skip", legendgroup=name, **fill
            )
        plot.add_scatter(
            x=x, y=means, mode="lines+markers" if line else "markers", name=name, legendgroup=name,
            line={"color": color}, marker={"color": color, "size": 8}, text=text, hovertemplate=hover,
            error_y=None if line else {"array": sds, "color": color}, offsetgroup=str(number),
        )  # fmt: skip
    factor = numeric and min(seen) > 0 and (axis in COUNTED or max(seen) / min(seen) >= 50)
    plot.update_xaxes(title=axis, type="log" if factor else "linear" if numeric else "category")
    if factor and len(seen) <= TICKS and not apart:
        ticks = sorted(seen)
        plot.update_xaxes(tickvals=ticks, ticktext=[shown(tick) for tick in ticks])
    elif factor:
        plot.update_xaxes(dtick="D2", exponentformat="power")
    plot.update_yaxes(title=f"{_said(score)}, × 100")
    plot.update_layout(showlegend=total > 1)
    if not numeric:  # bars of the same value stand beside each other, on an axis that does not begin at 0
        reach = [row.cells[score].mean + sign * (row.cells[score].sd or 0.0) for row in rows for sign in (-1, 1)]
        room = 0.1 * (max(reach) - min(reach)) or 1.0
        plot.update_layout(scattermode="group", scattergap=0.6)
        plot.update_yaxes(range=[min(reach) - room, max(reach) + room])
    note = "Mean over the seeds; the band is ± one standard deviation." if numeric else "Mean ± sd over the seeds."
    if apart:
        note = f"Each point is a row of the table; {', '.join(others)} differ too."
    if total > 1:
        note += f" By {', '.join(others)}{f', the {LINES} best of {total:,}' if total > LINES else ''}."
    return Figure(f"{_said(score)} against {axis}", note, plot)


def _heat_map(rows: Sequence[Row], score: str, axes: list[str]) -> Figure:
    """The score over the first two axes; the others stand at the one setting that fills the most cells.

    Cells with other settings elsewhere would compare more than the two axes; they stay empty.
    """
    others = axes[2:]
    slices: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        slices.setdefault(tuple(row.settings[other] for other in others), []).append(row)
    # Of slices with equally many cells, the first in the table's order: no score decides what is shown.
    fixed = max(slices, key=lambda key: len(slices[key]))
    cells = {tuple(shown(row.settings[axis]) for axis in axes[:2]): row.cells[score].mean for row in slices[fixed]}
    across, down = ([shown(item) for item in values_along(slices[fixed], axis)] for axis in axes[:2])
    values = [[cells.get((a, b)) for a in across] for b in down]
    plot = go.Figure(go.Heatmap(x=across, y=down, z=values, colorscale="Viridis", colorbar={"title": _said(score)}))
    if len(across) * len(down) <= 100:
        plot.data[0].update(texttemplate="%{z:.1f}")
    plot.update_xaxes(title=axes[0], type="category")
    plot.update_yaxes(title=axes[1], type="category")
    held = ", ".join(f"{axis}={shown(item)}" for axis, item in zip(others, fixed, strict=True))
    more = f" All at {held}." if held else ""
    return Figure(f"{_said(score)} by {axes[0]} and {axes[1]}", "Mean over the seeds." + more, plot)


def _alignment(rows: Sequence[Row], score: str) -> Iterator[Figure]:
    chosen = [row for row in rows if row.alignment is not None and row.uniformity is not None]
    if not chosen:
        return
    plot = _points(chosen, [row.uniformity for row in chosen], [row.alignment for row in chosen], score, colored=True)
    plot.update_xaxes(title="uniformity (lower is more even)")
    plot.update_yaxes(title="alignment (lower is closer)")
    yield Figure(
        "Alignment against uniformity", f"The colour is the score on {_said(score)}; best is bottom left.", plot
    )


def _against_time(rows: Sequence[Row], score: str) -> Figure:
    chosen = [row for row in rows if row.seconds is not None]
    plot = _points(chosen, [row.seconds for row in chosen], [row.cells[score].mean for row in chosen], score)
    plot.update_xaxes(title="training, seconds")
    plot.update_yaxes(title=f"{_said(score)}, × 100")
    return Figure(
        f"{_said(score)} against time", "Each point is a row of the table; point at it for its settings.", plot
    )


def _points(rows: Sequence[Row], x: Sequence[Any], y: Sequence[Any], score: str, *, colored: bool = False) -> go.Figure:
    means = [row.cells[score].mean for row in rows]
    marker: dict[str, Any] = {"size": 11, "color": COLORS[0]}
    if colored:
        marker |= {"color": means, "colorscale": "Viridis", "colorbar": {"title": _said(score)}}
    text = [f"{row.label}: {mean:.2f}" for row, mean in zip(rows, means, strict=True)]
    return go.Figure(go.Scatter(x=x, y=y, mode="markers", marker=marker, text=text, hoverinfo="text"))


def _losses(rows: Sequence[Row], score: str | None) -> Iterator[Figure]:
    """Loss curves, mean over the seeds."""
    plot = go.Figure()
    chosen = _best(rows, score)
    for number, row in enumerate(chosen):
        curves = [curve for run in row.runs if (curve := run.curve())]
        if not curves:
            continue
        length = min(map(len, curves))
        kept = range(0, length, max(1, length // POINTS))
        steps = [curves[0][i][0] for i in kept]
        losses = [sum(curve[i][1] for curve in curves) / len(curves) for i in kept]
        color = (
            COLORS[number]
            if len(chosen) <= len(COLORS)
            else sample_colorscale("Viridis", number / (len(chosen) - 1))[0]
        )
        plot.add_scatter(
            x=steps,
            y=losses,
            mode="lines+markers" if len(steps) < 10 else "lines",
            name=row.brief,
            line={"color": color, "width": 1.5},
        )
    if not plot.data:
        return
    plot.update_xaxes(title="step")
    plot.update_yaxes(title="loss")
    plot.update_layout(showlegend=len(plot.data) > 1)
    more = f" The {LINES} best of {len(rows):,} rows." if len(rows) > LINES else ""
    yield Figure("Loss", "Mean over the seeds." + more, plot)


def _cosines(rows: Sequence[Row], score: str | None) -> Iterator[Figure]:
    """Cosine similarities of the best row's first run, before and after."""
    chosen = [row for row in rows if row.runs[0].cosines.get(TUNED)]
    if not chosen:
        return
    row = max(chosen, key=lambda row: row.cells[score].mean if score in row.cells else 0.0)
    found = row.runs[0].cosines
    edges, tuned = found["edges"], found[TUNED]
    name = score if score is not None and score in tuned else str(next(iter(tuned)))
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    plot = go.Figure()
    same = f"raw {row.runs[0].settings['model.pooling']}"  # the untouched model pooled as the encoder is, if measured
    before = [same] if same in found else [column for column in found if column not in ("edges", TUNED)][-1:]
    for column, dash in (*((one, "dot") for one in before), (TUNED, "solid")):
        for kind, color, said in (("true", COLORS[2], "belong together"), ("random", COLORS[7], "random")):
            counts = found[column][name][kind]
            share = [100 * count / max(1, sum(counts)) for count in counts]
            line = {"color": color, "dash": dash, "shape": "hvh", "width": 2}
            plot.add_scatter(x=middles, y=share, mode="lines", name=f"{column}: {said}", line=line)
    plot.update_xaxes(title="cosine similarity", range=[min(-0.2, _first(found, name, middles)), 1.02])
    plot.update_yaxes(title="pairs, %")
    yield Figure(
        f"Cosine similarities on {_said(name)}", f"Of the best row: {row.label}. Dotted is the untouched model.", plot
    )


def _first(found: dict[str, Any], name: str, middles: Sequence[float]) -> float:
    """The lowest similarity that occurs."""
    return min(
        middle
        for column, sets in found.items()
        if column != "edges"
        for kind in ("true", "random")
        for middle, count in zip(middles, sets[name][kind], strict=True)
        if count
    )
