"""Shows where encoders err, before and after training: tables, and ``errors.html``, a self-contained page."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from mirror.errors import MirrorError
from mirror.evaluation.residuals import residuals
from mirror.evaluation.results import Errors, Results, SetErrors
from mirror.report.details import kind_table, neighbour_table, worst_table
from mirror.report.terminal import SEEN, SEEN_NOTE
from mirror.runs.atomic import written_whole
from mirror.runs.record import not_written

log = logging.getLogger(__name__)

PAGE = "errors.html"
TEMPLATE = Path(__file__).with_name("errors.html")
POINTS = 1500
"""Most pairs drawn of a set, so that the page stays fast; the residuals count all pairs."""
BINS = np.linspace(-1, 1, 51)
"""Bins of the residuals."""


def check_plotly() -> None:
    """Fail before a long run rather than after it.

    Raises:
        MirrorError: plotly is not installed.
    """
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise MirrorError("eval.errors=true needs the package plotly: pip install 'mirror-encoders[report]'.") from None


def show_errors(results: Results, columns: Sequence[str], folder: Path) -> None:
    """Print and write what ``eval.errors`` and ``eval.neighbours`` ask for, sorted by the last column."""
    config = results.config
    if config.neighbours:
        near = {column: results.neighbours[column] for column in columns}
        log.info("\n%s", neighbour_table(near, "Nearest neighbours"))
    if not config.errors:
        return
    errors = results.errors(columns)
    for name, found in errors.sets.items():
        if found.kinds:
            log.info("\n%s", kind_table(found.kinds, f"{name} by kind of pair, × 100 (Spearman)", found.seen))
        log.info("\n%s", worst_table(found.worst, f"{name}: largest residuals of {columns[-1]} (+ is too similar)"))
    if any(found.seen for found in errors.sets.values()):
        log.info(SEEN_NOTE)
    several = any(len(results.seeds[column]) > 1 for column in columns)
    write_page(errors, columns, folder / PAGE, several=several)
    log.info("errors in %s%s", folder / PAGE, ", of the last seed" if several else "")


def write_page(errors: Errors, columns: Sequence[str], path: Path, *, several: bool = False) -> None:
    """The tables and, for each set, the similarity against the gold score and the residuals, as interactive plots.

    Args:
        errors: the errors of these columns.
        columns: the encoders; the page is sorted by the last one.
        path: where the page is written.
        several: say that the errors are those of the last of several seeds.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    sets: list[dict[str, Any]] = []
    plots: list[dict[str, Any]] = []
    for name, found in errors.sets.items():
        drawn = _plots(found, first=len(plots))
        headings = {column: column + f" {SEEN}" * (column in found.seen) for column in columns}
        sets.append({"name": name, "columns": headings, "kinds": found.kinds, "worst": found.worst, "plots": drawn})
        plots += drawn
    near = errors.neighbours
    page = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=f"Errors: {' and '.join(columns)}",
        last=columns[-1],
        points=POINTS,
        several=several,
        seen_note=SEEN_NOTE if any(found.seen for found in errors.sets.values()) else "",
        script=get_plotlyjs(),
        sets=sets,
        plots=plots,
        neighbours=near,
        words=list(next(iter(near.values()), {})),
        figure=lambda value: "–" if np.isnan(value) else f"{value:.2f}",
    )
    try:
        with written_whole(path) as partial:
            partial.write_text(html, encoding="utf-8")
    except OSError as error:
        raise not_written(path.parent, error, path.name) from error


def _plots(found: SetErrors, first: int) -> list[dict[str, Any]]:
    """Plotly traces: one plot for each encoder, and one of all residuals; the page chooses the colours."""
    test, (*_, last) = found.test, found.similarities
    drawn = np.sort(np.random.default_rng(0).permutation(len(test))[:POINTS])
    pairs = test.pairs()
    texts = [f"{_short(left)}<br>{_short(right)}" for left, right in (pairs[i] for i in drawn)]
    plots: list[dict[str, Any]] = []
    bars = []
    middles = ((BINS[1:] + BINS[:-1]) / 2).round(4).tolist()
    for column, values in found.similarities.items():
        color = "after" if column == last else "before"
        points = {
            "type": "scatter", "mode": "markers", "name": column, "meta": color, "marker": {"size": 4, "opacity": 0.55},
            "x": test.gold[drawn].tolist(), "y": values[drawn].round(4).tolist(), "text": texts,
            "hovertemplate": "%{text}<br>gold %{x}, cosine %{y:.2f}<extra></extra>",
        }  # fmt: skip
        score = 100 * float(scipy.stats.spearmanr(values, test.gold).statistic)
        title = f"{column}: {score:.2f}" + SEEN * (column in found.seen)
        plots.append({"title": title, "x": "gold score", "y": "cosine similarity", "traces": [points]})
        counts = np.histogram(residuals(values, test.gold), BINS)[0].tolist()
        bars.append({"type": "bar", "name": column, "meta": color, "opacity": 0.6, "x": middles, "y": counts})
    plots.append({"title": "Residuals", "x": "residual", "y": "pairs", "traces": bars})
    return [{**plot, "number": first + i} for i, plot in enumerate(plots)]


def _short(text: str, limit: int = 90) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
