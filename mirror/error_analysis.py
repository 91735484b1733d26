"""Where encoders err, before and after: tables, and ``errors.html``, one page that needs no other file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirror.errors import MirrorError
from mirror.evaluation.pairs import PairSet
from mirror.evaluation.residuals import residuals
from mirror.results import Errors, Results
from mirror.summary import kind_table, neighbour_table, worst_table

log = logging.getLogger(__name__)

PAGE = "errors.html"
COLORS = ("#8c8c8c", "#1f77b4")
"""Before and after."""
POINTS = 1500
"""Pairs drawn of a larger set, so that the page stays quick; the residuals are of all."""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
 body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222; }
 table { border-collapse: collapse; margin: .8rem 0 1.6rem; } caption { text-align: left; font-weight: 600; }
 th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
 td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
 p.note { color: #666; }
</style><script>{{ script|safe }}</script></head><body>
<h1>{{ title }}</h1>
<p class="note">Cosine similarity against gold scores. The residual is by how much a pair ranks too high, as a share of
the set's pairs: −1 to 1, 0 is right. Of a large set {{ points }} random pairs are drawn; figures and
residuals are of all pairs.</p>
{% for set in sets %}
<h2>{{ set.name }}</h2>
{{ set.plot|safe }}
<table><caption>Scores by kind of pair (Spearman × 100)</caption>
<tr><th></th><th>kind</th><th class="n">pairs</th>
{% for column in set.columns %}<th class="n">{{ column }}</th>{% endfor %}</tr>
{% for kind in set.kinds %}<tr><td>{{ kind.group }}</td><td>{{ kind.name }}</td><td class="n">{{ kind.pairs }}</td>
{% for column in set.columns %}<td class="n">{{ figure(kind.scores[column]) }}</td>{% endfor %}</tr>{% endfor %}
</table>
<table><caption>Largest residuals of {{ set.columns[-1] }}</caption>
<tr><th>texts</th><th class="n">gold</th>{% for column in set.columns %}<th class="n">{{ column }}</th>{% endfor %}</tr>
{% for pair in set.worst %}<tr><td>{{ pair.left }}<br>{{ pair.right }}</td>
<td class="n">{{ "%g"|format(pair.gold) }}</td>
{% for column in set.columns %}<td class="n">{{ "%+.2f"|format(pair.residuals[column]) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
{% if neighbours %}<h2>Nearest neighbours</h2>
<table><tr><th></th>{% for column in neighbours %}<th>{{ column }}</th>{% endfor %}</tr>
{% for word in words %}<tr><td>{{ word }}</td>{% for near in neighbours.values() %}<td>
{% for text, cosine in near[word] %}{{ text }} ({{ "%.2f"|format(cosine) }})<br>{% endfor %}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
</body></html>
"""


def check_plotly() -> None:
    """Refuse before a long run what would fail after it.

    Raises:
        MirrorError: plotly is not installed.
    """
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise MirrorError("eval.errors=true needs the package plotly: pip install 'mirror-encoders[report]'.") from None


def show_errors(results: Results, columns: Sequence[str], folder: Path) -> None:
    """Print and write what ``eval.errors`` and ``eval.neighbours`` ask for; the last column leads."""
    config = results.config
    if config.neighbours:
        near = {column: results.neighbours[column] for column in columns}
        log.info("\n%s", neighbour_table(near, "Nearest neighbours"))
    if not config.errors:
        return
    errors = results.errors(columns)
    for name, found in errors.sets.items():
        if found.kinds:
            log.info("\n%s", kind_table(found.kinds, f"{name} by kind of pair, × 100 (Spearman)"))
        log.info("\n%s", worst_table(found.worst, f"{name}: largest residuals of {columns[-1]} (+ is too similar)"))
    write_page(errors, f"Errors: {' and '.join(columns)}", folder / PAGE)
    log.info("errors in %s", folder / PAGE)


def write_page(errors: Errors, title: str, path: Path) -> None:
    """The tables and, for each set, the similarity against the gold score and the residuals, as interactive plots."""
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs

    sets = [
        {"name": name, "columns": list(found.similarities), "kinds": found.kinds, "worst": found.worst,
         "plot": _plot(found.test, found.similarities)}
        for name, found in errors.sets.items()
    ]  # fmt: skip
    page = Environment(autoescape=True).from_string(TEMPLATE)
    near = errors.neighbours
    html = page.render(
        title=title,
        points=POINTS,
        script=get_plotlyjs(),
        sets=sets,
        neighbours=near,
        words=list(next(iter(near.values()), {})),
        figure=lambda value: "–" if np.isnan(value) else f"{value:.2f}",
    )
    path.write_text(html, encoding="utf-8")


def _plot(test: PairSet, similarities: Mapping[str, Any]) -> str:
    from plotly.subplots import make_subplots

    columns = list(similarities)
    figure = make_subplots(1, len(columns) + 1, subplot_titles=[*columns, "residuals"])
    drawn = np.sort(np.random.default_rng(0).permutation(len(test))[:POINTS])
    pairs = test.pairs()
    texts = [f"{_short(left)}<br>{_short(right)}" for left, right in (pairs[i] for i in drawn)]
    for place, (column, values) in enumerate(similarities.items(), start=1):
        color = COLORS[place - len(columns) - 1]
        figure.add_scatter(
            x=test.gold[drawn], y=values[drawn], text=texts, mode="markers", name=column, row=1, col=place,
            marker={"size": 4, "opacity": 0.5, "color": color}, hovertemplate="%{text}<br>%{x} %{y:.2f}",
        )  # fmt: skip
        figure.add_histogram(
            x=residuals(values, test.gold), name=column, row=1, col=len(columns) + 1, opacity=0.6, nbinsx=60,
            marker={"color": color}, showlegend=False,
        )  # fmt: skip
        figure.update_xaxes(title="gold score", row=1, col=place)
    figure.update_yaxes(title="cosine similarity", row=1, col=1)
    figure.update_layout(
        barmode="overlay", template="simple_white", height=360, margin={"t": 40, "l": 40, "r": 10, "b": 40}
    )
    html: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return html


def _short(text: str, limit: int = 90) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
