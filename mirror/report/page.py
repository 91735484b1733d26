"""A self-contained HTML page, which opens from the disk without a network."""

import base64
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mirror.errors import MirrorError
from mirror.report.files import MARKS, figure, seeds
from mirror.report.published import published
from mirror.report.runs import Found, Run
from mirror.report.table import Comparison, order, shown, value, varying

TEMPLATE = Path(__file__).with_name("page.html")


def page(found: Found, comparisons: Sequence[Comparison], title: str, folder: Path, every: int | None) -> str:
    """The page as text.

    Args:
        found: all runs.
        comparisons: the finished ones.
        title: heading.
        folder: where the page will lie, for its links.
        every: seconds after which a browser reads it again; None is never.

    Raises:
        MirrorError: a package is missing.
    """
    try:
        import itables.options
        import jinja2
        from plotly.offline import get_plotlyjs

        from mirror.report.figures import figures
    except ImportError as error:
        raise MirrorError(f"A report needs the package {error.name}: pip install 'mirror-encoders[report]'.") from None

    pictures: list[list[dict[str, Any]]] = []
    plots: list[dict[str, Any]] = []
    for comparison in comparisons:
        pictures.append([])
        for picture in figures(comparison):
            picture.plot.update_layout(template=None)
            pictures[-1].append({"title": picture.title, "note": picture.note, "number": len(plots)})
            name = "".join(letter if letter.isalnum() else "-" for letter in picture.title)
            plots.append({**json.loads(picture.plot.to_json()), "name": name})
    axes = varying(found.runs)
    runs = sorted(found.runs, key=lambda run: [order(value(run, axis)) for axis in axes])

    def difference(run: Run) -> str:
        return ", ".join(f"{axis}={shown(value(run, axis))}" for axis in axes)

    def details(run: Run) -> dict[str, str | None]:
        settings = "\n".join(f"{axis} = {value(run, axis)}" for axis in axes)
        link = Path(os.path.relpath(run.folder, folder)).as_posix()
        return {"error": run.error, "settings": settings, "command": run.command, "log": run.log(), "folder": link}

    # The bundle of DataTables that itables brings along, so that no network is needed.
    bundle = Path(itables.options.dt_bundle)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        summary=summary(found.runs),
        when=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        every=every,
        problems=found.problems,
        comparisons=comparisons,
        pictures=pictures,
        plots=json.dumps(plots).replace("<", "\\u003c"),
        axes=axes,
        runs=runs,
        details=[details(run) for run in runs],
        difference=difference,
        beside=beside,
        figure=figure,
        seeds=seeds,
        shown=shown,
        value=value,
        marks=MARKS,
        plotly_js=get_plotlyjs(),
        table_js=base64.b64encode(bundle.read_bytes()).decode(),
        table_css=bundle.with_suffix(".css").read_text(encoding="utf-8"),
    )


def beside(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Rows under a table: the untouched model, and published figures."""
    raw = {f"untouched model, {column}": scores for column, scores in comparison.raw.items()}
    return {**raw, **published(comparison.scores)} if comparison.scores else {}


def summary(runs: Sequence[Run]) -> str:
    """How many runs there are, and how they ended."""
    states = [run.status for run in runs]
    parts = [f"{states.count(state):,} {state}" for state in dict.fromkeys(["finished", *sorted(states)])]
    return f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}: {', '.join(parts)}."
